"""The whole hive on one seeded loop with virtual time; a failing seed repeats."""
