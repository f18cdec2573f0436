"""Records a golden history: ``python -m tests.golden.record [FILE]`` runs the demo and exports its run.

The file is one of `hive history export`. Without FILE it is
``tests/golden/histories/demo-VERSION.jsonl``. A history of a released version is never recorded again: when
today's brains decide otherwise, that is what it is there to tell.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from hive_bus import open_bus
from hive_bus.replay.transfer import export_history

HISTORIES = Path(__file__).parent / "histories"
# The log tells where work was done: always the same place, so that a new recording differs in what has changed alone.
PLACE = Path(tempfile.gettempdir()) / "hive-golden"


async def export(url: str, file: Path) -> int:
    """Write the runs of a hive; returns how many events."""
    async with open_bus(url, source="golden") as bus:
        return await export_history(bus.store.log, file)


def record_demo(file: Path) -> int:
    """Run the demo in its own place and export its log; returns the number of events."""
    PLACE.mkdir()
    try:
        hive = Path(sys.executable).with_name("hive")
        subprocess.run([hive, "demo", "--dir", "jars", "--db", "hive.db"], cwd=PLACE, check=True, capture_output=True)
        return asyncio.run(export(str(PLACE / "hive.db"), file))
    finally:
        shutil.rmtree(PLACE)


def main() -> None:
    """Record, and say what was written."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else HISTORIES / f"demo-{version('hive-orchestrator')}.jsonl"
    count = record_demo(file)
    sys.stdout.write(f"{file}: {count} events\n")


if __name__ == "__main__":
    main()
