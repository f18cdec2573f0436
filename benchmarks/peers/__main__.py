"""``python -m benchmarks.peers``: no-op steps of the hive and of its peers, taking turns on the same disk.

Peers live in an environment of their own (``.venv-peers``, made by ``make bench-peers``), so
that they disturb nothing that the hive is pinned to; each is a child process that sleeps
while the hive has its turn. On PostgreSQL all share a server, each in a database of its own.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fnmatch import fnmatch
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import runs
from benchmarks.children import ROOT, Child, child
from benchmarks.pairs import Figure, Sides, paired
from benchmarks.places import Ground, sqlite_place
from benchmarks.postgres import Server, postgres_place, server
from hive_bus import tune_process

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
POSTGRES = {"dbos": (10, 30), "procrastinate": (3, 10), "langgraph": (10, 30)}
MODULES = {"dbos": "dbos_steps", "procrastinate": "procrastinate_jobs", "langgraph": "langgraph_steps"}


@asynccontextmanager
async def peer(name: str, url: str) -> AsyncIterator[Child]:
    """The child that measures one of them."""
    async with child(f"benchmarks.peers.{MODULES[name]}", url, python=PYTHON) as one:
        yield one


async def compare(title: str, other: Child, verb: str, ours: Callable[[], Awaitable[float]], **rest: float) -> Figure:
    """Take turns; the first turn of each warms up."""
    arguments = {name: int(rest.pop(name)) for name in ("runs", "length") if name in rest}
    about = await other.ask("about")
    sides = Sides(floor=partial(other.ask, verb, **arguments), candidate=ours, also=lambda: {"peer": about})
    return await paired(title, sides, unit="steps/s", must=rest["must"], aim=rest["aim"], pairs=int(rest["pairs"]))


async def on_sqlite(*, length: int, count: int, pairs: int) -> AsyncIterator[Figure]:
    """The one on a file: in one run and in many."""
    with TemporaryDirectory() as directory:
        async with peer("dbos", f"sqlite:///{directory}/dbos.db") as other:
            ours = partial(runs.in_sequence, sqlite_place, length)
            title = f"noop steps, one run of {length:,}, against dbos"
            yield await compare(title, other, "sequence", ours, length=length, must=5, aim=10, pairs=pairs)
            many = partial(runs.side_by_side, sqlite_place, count)
            title = f"noop steps, {count:,} runs of 5 at once, against dbos"
            yield await compare(title, other, "together", many, runs=count, length=5, must=10, aim=30, pairs=pairs)


async def on_postgres(running: Server, name: str, *, count: int, pairs: int) -> Figure:
    """One peer on PostgreSQL, in many runs."""
    ground: Ground = partial(postgres_place, running)
    must, aim = POSTGRES[name]
    async with peer(name, await running.new_database()) as other:
        title = f"noop steps, {count:,} runs of 5 at once, PostgreSQL, against {name}"
        ours = partial(runs.side_by_side, ground, count)
        return await compare(title, other, "together", ours, runs=count, length=5, must=must, aim=aim, pairs=pairs)


async def measure(patterns: list[str], *, length: int, count: int, pairs: int) -> bool:
    """Every figure that was asked for; whether they reach what they must."""

    def wanted(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    good = True
    if wanted("sqlite-dbos"):
        async for figure in on_sqlite(length=length, count=count, pairs=pairs):
            figure.say()
            good = good and figure.holds
    names = [name for name in POSTGRES if wanted(f"pg-{name}")]
    if names:
        async with server() as running:
            for name in names:
                figure = await on_postgres(running, name, count=count, pairs=pairs)
                figure.say()
                good = good and figure.holds
    return good


def main() -> int:
    """Measure; 1 when a figure misses what it must, 2 without the peers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    known = ["sqlite-dbos", *(f"pg-{name}" for name in POSTGRES)]
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help=f"rows: {', '.join(known)}")
    parser.add_argument("--pairs", type=int, default=3, help="turns that count (default 3)")
    parser.add_argument("--length", type=int, default=1000, help="steps of the one run (default 1000)")
    parser.add_argument("--runs", type=int, default=1000, help="runs of five steps at once (default 1000)")
    wanted = parser.parse_args()
    if not PYTHON.exists():
        parser.error("the peers are not installed; try: make bench-peers")
    tune_process()
    good = asyncio.run(measure(wanted.only, length=wanted.length, count=wanted.runs, pairs=wanted.pairs))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
