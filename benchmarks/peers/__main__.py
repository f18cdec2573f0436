"""``python -m benchmarks.peers``: no-op steps of the hive and of ``dbos``, taking turns on the same disk.

dbos lives in an environment of its own (``.venv-peers``, made by ``make bench-peers``), so
that it disturbs nothing that the hive is pinned to; it is a child process that sleeps
while the hive has its turn. Both write SQLite files, both start with an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import runs
from benchmarks.pairs import Figure, figure
from hive_bus import tune_process

HERE = Path(__file__).parent
PYTHON = HERE.parent.parent / ".venv-peers" / "bin" / "python"


class Peer:
    """The child that measures dbos."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [PYTHON, HERE / "dbos_steps.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, *words: object) -> float:
        """Steps per second, as the child says; RuntimeError when it ended instead."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(*words, file=self._child.stdin, flush=True)
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"dbos ended with code {self._child.wait()}")
        return float(answer)

    def close(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


async def compare(
    name: str, ours: Callable[[], Awaitable[float]], theirs: Callable[[], float], *, must: float, aim: float, pairs: int
) -> Figure:
    """Take turns; the first turn of each warms up."""
    rows = [(theirs(), await ours()) for _ in range(pairs + 1)]
    return figure(name, rows[1:], must=must, aim=aim, unit="steps/s")


async def measure(*, length: int, count: int, pairs: int) -> bool:
    """Both figures; whether they reach what they must."""
    peer = Peer()
    try:
        one = await compare(
            f"noop steps, one run of {length:,}, against dbos",
            lambda: runs.in_sequence(length),
            lambda: peer.measure("sequence", length),
            must=5,
            aim=10,
            pairs=pairs,
        )
        one.say()
        many = await compare(
            f"noop steps, {count:,} runs of 5 at once, against dbos",
            lambda: runs.side_by_side(count),
            lambda: peer.measure("together", count, 5),
            must=10,
            aim=30,
            pairs=pairs,
        )
        many.say()
    finally:
        peer.close()
    return one.holds and many.holds


def main() -> int:
    """Measure; 1 when a figure misses what it must, 2 without dbos."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="turns that count (default 3)")
    parser.add_argument("--length", type=int, default=1000, help="steps of the one run (default 1000)")
    parser.add_argument("--runs", type=int, default=1000, help="runs of five steps at once (default 1000)")
    wanted = parser.parse_args()
    if not PYTHON.exists():
        parser.error("dbos is not installed; try: make bench-peers")
    tune_process()
    return 0 if asyncio.run(measure(length=wanted.length, count=wanted.runs, pairs=wanted.pairs)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
