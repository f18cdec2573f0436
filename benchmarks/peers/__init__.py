"""The hive beside its peers, run on demand: see ``__main__``."""
