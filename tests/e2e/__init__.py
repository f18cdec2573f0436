"""The `hive` command as a person runs it."""
