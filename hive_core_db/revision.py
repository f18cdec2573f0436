"""Which schema revisions exist, oldest first; a test compares them with the migrations."""

from __future__ import annotations

REVISIONS = ("0001", "0002", "0003")
HEAD = REVISIONS[-1]
# "HIVE" in ASCII: written into the header of every SQLite file of ours.
APPLICATION_ID = 0x48495645
