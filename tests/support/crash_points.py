"""Dies at one suspension after the other, resumes on the same file each time, and says what was wrong.

``python -m tests.support.crash_points DIRECTORY ORDERS`` prints one JSON line. The process
that forks has neither loop nor threads nor an open file of the hive; each point begins with a new file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.crash import DIED, Ledger, run_counted
from tests.support.simulated import unsound

PATIENCE = 30


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a fork; its exit status (negative: the signal that ended it)."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wrong(path: Path, ledger: Path, orders: int) -> list[str]:
    """What the auditor says, orders that did not close once, and effects that happened too often."""
    found = unsound(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        closed = Counter(row[0] for row in db.execute("SELECT correlation_id FROM events WHERE topic = 'shop.closed'"))
        answered = "SELECT causation_id, topic FROM events WHERE topic IN ('charge.made', 'ship.sent', 'pick.done')"
        results = db.execute(answered).fetchall()
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


def cover(directory: Path, orders: int) -> dict[str, object]:
    """Die at every point, until a child survives or something is wrong."""
    found: list[str] = []
    last, survived = 0, False
    while not survived and not found:
        last += 1
        path, ledger = directory / f"{last}.db", directory / f"{last}.ledger"
        status = in_child(partial(run_counted, path, ledger, orders, last))
        survived = status == 0
        if status not in {0, DIED}:
            found.append(f"point {last}: it ended with {status}")
        if last % 5 == 0:
            # Recovery dies too: what it began is taken up once more.
            in_child(partial(run_counted, path, ledger, orders, last // 2))
        again = in_child(partial(run_counted, path, ledger, orders, 0))
        if again != 0:
            found.append(f"point {last}: recovery ended with {again}")
        found += [f"point {last}: {each}" for each in wrong(path, ledger, orders)]
        if not found:
            for file in directory.glob(f"{path.stem}.*"):
                file.unlink()
    return {"points": last - survived, "survived": survived, "last": last, "wrong": found}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(cover(Path(sys.argv[1]), int(sys.argv[2]))))
