"""Real things that tests stand on: servers and what they say."""
