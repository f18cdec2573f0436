"""Measurements of the hive against raw floors, in pairs, in one process. Never tests."""
