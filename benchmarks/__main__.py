"""``python -m benchmarks [NAME ...]``: every figure as a JSON line; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from benchmarks import log, process
from benchmarks.pairs import Figure
from hive_bus import tune_process


async def _steps() -> None:
    from benchmarks import runs

    rates = {"one run of 1,000": await runs.in_sequence(), "1,000 runs of 5": await runs.side_by_side()}
    for name, rate in rates.items():
        sys.stdout.write(
            json.dumps({"name": f"noop steps, {name}", "candidate": round(rate, 1), "unit": "steps/s"}) + "\n"
        )


async def _commands() -> Figure:
    from benchmarks import runs

    return await runs.commands()


FIGURES: dict[str, Callable[[], Awaitable[Figure]]] = {
    "publish-many": log.publish_many,
    "publish-one": log.publish_one,
    "catch-up": log.catch_up,
    "fold": log.fold,
    "latency": log.latency,
    "commands": _commands,
}
QUICK: dict[str, Callable[[], Figure]] = {"import": process.imports, "help": process.help_text}


async def _measure(names: list[str]) -> bool:
    good = True
    for name in names:
        if name == "steps":
            await _steps()
            continue
        figure = QUICK[name]() if name in QUICK else await FIGURES[name]()
        figure.say()
        good = good and figure.holds
    return good


def main() -> int:
    """Run what was named, or all; 1 when a figure misses what it must."""
    known = [*FIGURES, "steps", *QUICK]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names = parser.parse_args().names or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    tune_process()
    return 0 if asyncio.run(_measure(names)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
