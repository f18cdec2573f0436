"""Records a golden history: ``python -m tests.golden.record [FILE]`` runs the demo and writes its log as JSON Lines.

A line is one event by column, in log order; `hive redrive FILE` reads such a file. Without FILE it is
``tests/golden/histories/demo-VERSION.jsonl``. A history of a released version is never recorded again: when
today's brains decide otherwise, that is what it is there to tell. ``python -m tests.golden.record FILE DB`` exports
the log at DB instead.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from hive_core_db.records import StoredEvent

HISTORIES = Path(__file__).parent / "histories"
# The log tells where work was done: always the same place, so that a new recording differs in what has changed alone.
PLACE = Path(tempfile.gettempdir()) / "hive-golden"


def export(database: Path, file: Path) -> int:
    """Write every event of a log that nobody writes to; returns how many."""
    columns = ", ".join(StoredEvent._fields)
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(f"SELECT {columns} FROM events ORDER BY position").fetchall()
    lines = (json.dumps(StoredEvent(*row)._asdict(), ensure_ascii=False) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(rows)


def record_demo(file: Path) -> int:
    """Run the demo in its own place and export its log; returns the number of events."""
    PLACE.mkdir()
    try:
        hive = Path(sys.executable).with_name("hive")
        subprocess.run([hive, "demo", "--dir", "jars", "--db", "hive.db"], cwd=PLACE, check=True, capture_output=True)
        return export(PLACE / "hive.db", file)
    finally:
        shutil.rmtree(PLACE)


def main() -> None:
    """Record or export, and say what was written."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else HISTORIES / f"demo-{version('hive-orchestrator')}.jsonl"
    count = export(Path(sys.argv[2]).resolve(), file) if len(sys.argv) > 2 else record_demo(file)
    sys.stdout.write(f"{file}: {count} events\n")


if __name__ == "__main__":
    main()
