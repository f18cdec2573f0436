"""How one schema revision becomes the next; run by `hive db upgrade`."""
