"""``python -m benchmarks [--only PATTERN ...]``: every figure as a JSON line; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
from fnmatch import fnmatch

from benchmarks.postgres import server
from benchmarks.rows import ROWS, Row, measure
from hive_bus import tune_process


async def _measure(rows: list[Row]) -> bool:
    if not any(row.postgres for row in rows):
        return await measure(rows, None)
    async with server() as running:
        return await measure(rows, running)


def main() -> int:
    """Measure what was chosen, or all; 1 when a figure misses what it must."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help=f"such as 'pg-*'; rows: {names}")
    patterns = parser.parse_args().only
    for pattern in patterns:
        if not any(fnmatch(row.name, pattern) for row in ROWS):
            parser.error(f"unknown: {pattern}; known: {names}")
    tune_process()
    chosen = [row for row in ROWS if any(fnmatch(row.name, pattern) for pattern in patterns)]
    return 0 if asyncio.run(_measure(chosen)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
