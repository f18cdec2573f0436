"""What a process costs: imports, and five hundred commands in flight."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pairs import Figure


def _seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def bare_interpreter() -> float:
    """Seconds until a Python that does nothing has ended."""
    return statistics.median(_seconds("-c", "pass") for _ in range(5))


def start_up(name: str, arguments: list[str], *, must: float, aim: float) -> Figure:
    """Seconds over a bare interpreter, median of pairs."""
    pairs = [(_seconds("-c", "pass"), _seconds(*arguments)) for _ in range(7)]
    over = statistics.median(ours - bare for bare, ours in pairs)
    return Figure(
        name=name,
        ratio=over,
        must=must,
        aim=aim,
        candidate=statistics.median(ours for _, ours in pairs),
        floor=statistics.median(bare for bare, _ in pairs),
        unit="s over a bare interpreter",
        pairs=len(pairs),
        lower_is_better=True,
    )


IMPORT = ["-c", "import hive_bus"]
HELP = [str(Path(sys.executable).with_name("hive")), "--help"]


def resident() -> float:
    """This process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000
