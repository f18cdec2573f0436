"""Dies at one suspension after the other, resumes on the same database each time, and says what was wrong.

``python -m tests.support.crash_points DIRECTORY ORDERS STRIDE [SERVER]`` prints one JSON line. The process that forks has neither
loop nor threads nor an open database of the hive; each point begins with a new one: a file, or a database on the PostgreSQL server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.crash import DIED, Ledger, run_counted
from tests.support.postgres import Databases
from tests.support.simulated import unsound
from tests.support.tables import rows

PATIENCE = 100


def in_child(work: Callable[[], object], *, patience: int = PATIENCE) -> int:
    """Run ``work`` in a fork for so many seconds at most; its exit status (negative: the signal that ended it)."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(patience)
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wrong(url: str, ledger: Path, orders: int) -> list[str]:
    """What the auditor says, orders that did not close once, and effects that happened too often."""
    found = unsound(url)
    closed = Counter(row[0] for row in rows(url, "SELECT correlation_id FROM events WHERE topic = 'shop.closed'"))
    answered = "SELECT causation_id, topic FROM events WHERE topic IN ('charge.made', 'ship.sent', 'pick.done')"
    results = rows(url, answered)
    found += [f"order{number} closed {closed[f'order{number}']} times" for number in range(orders)
              if closed[f"order{number}"] != 1]  # fmt: skip
    world = Ledger(ledger)
    done = {family: world.counts(family) for family in ("charge", "ship", "pick")}
    for family in ("charge", "ship"):
        found += [f"{family} {key} happened {count} times" for key, count in done[family].items() if count > 1]
    for key, topic in results:
        if not done[topic.partition(".")[0]][key]:
            found.append(f"{topic} of {key} has no effect behind it")
    return found


def cover(directory: Path, orders: int, stride: int, databases: Databases | None) -> dict[str, object]:
    """Die at every ``stride``-th point, until a child survives or something is wrong."""
    found: list[str] = []
    last, points, survived = 0, 0, False
    while not survived and not found:
        last += stride
        url = databases.new() if databases else f"sqlite:///{directory}/{last}.db"
        ledger = directory / f"{last}.ledger"
        status = in_child(partial(run_counted, url, ledger, orders, last))
        survived = status == 0
        points += not survived
        if status not in {0, DIED}:
            found.append(f"point {last}: it ended with {status}")
        if points % 5 == 0:
            # Recovery dies too: what it began is taken up once more.
            in_child(partial(run_counted, url, ledger, orders, last // 2))
        again = in_child(partial(run_counted, url, ledger, orders, 0))
        if again != 0:
            found.append(f"point {last}: recovery ended with {again}")
        found += [f"point {last}: {each}" for each in wrong(url, ledger, orders)]
        if not found:
            for file in directory.glob(f"{last}.*"):
                file.unlink()
            if databases:
                databases.drop(url)
    return {"points": points, "survived": survived, "last": last, "wrong": found}


def main(directory: str, orders: str, stride: str, server: str = "") -> None:
    """Cover what was asked for, and say how that went."""
    databases = Databases(server) if server else None
    report = cover(Path(directory), int(orders), int(stride), databases)
    if databases:
        databases.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
