"""Removes coverage data that cannot be read, before the rest is combined: ``python -m tests.coverage_data DIRECTORY``.

A process that is killed while it writes what it covered leaves half a file, over which `coverage combine` may stumble. That is
rare: more than a few of them are another trouble, and a failure.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

MOST: Final = 5
_TABLES: Final = ("meta", "file", "arc")


def fault_of(path: Path) -> str:
    """What is wrong with one process's data; empty if nothing is."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            found: str = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            for table in _TABLES:
                db.execute(f"SELECT count(*) FROM {table}").fetchone()
    except sqlite3.Error as problem:
        return str(problem)
    return "" if found == "ok" else found


def main(directory: str) -> int:
    """Remove what cannot be read and say so; 1 if that was too much."""
    removed = 0
    for path in sorted(Path(directory).glob("data.*")):
        if fault := fault_of(path):
            sys.stdout.write(f"not counted, its process was killed while it wrote it: {path.name}: {fault}\n")
            path.unlink()
            removed += 1
    if removed > MOST:
        sys.stdout.write(f"FAILED: {removed} processes left coverage that cannot be read; at most {MOST} may\n")
    return int(removed > MOST)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
