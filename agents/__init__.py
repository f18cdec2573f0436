"""Floor 4: who acts: the four brains, hands, models, tools, sandboxes and the `Hive`; knows no HTTP, HTML or terminal."""
