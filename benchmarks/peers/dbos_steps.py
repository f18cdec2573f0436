"""No-op steps of ``dbos`` on SQLite, as a child that measures when told: it runs in an environment of its own.

Reads lines of standard input (``sequence N``, ``together RUNS N``) and answers each with
the steps per second on a line of standard output. It imports nothing of the hive.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from dbos import DBOS


@DBOS.step()
def noop() -> None:
    """Do nothing, durably."""


@DBOS.workflow()
def chain(length: int) -> None:
    """Steps one after the other."""
    for _ in range(length):
        noop()


def sequence(length: int) -> float:
    """Steps per second of one workflow."""
    begin = time.perf_counter()
    chain(length)
    return length / (time.perf_counter() - begin)


AT_ONCE = 100
"""More workflows than dbos has threads; enough that none of these ever waits for work."""
LONGEST = 20.0
"""Seconds after which no more are started: its rate is known by then."""


def together(runs: int, length: int) -> float:
    """Steps per second of many workflows at once, on the threads that dbos chooses; 20 seconds of them are enough."""
    begin = time.perf_counter()
    done = 0
    while done < runs and time.perf_counter() - begin < LONGEST:
        handles = [DBOS.start_workflow(chain, length) for _ in range(min(AT_ONCE, runs - done))]
        for handle in handles:
            handle.get_result()
        done += len(handles)
    return done * length / (time.perf_counter() - begin)


MEASURES = {"sequence": sequence, "together": together}


def main() -> None:
    """Serve until standard input ends."""
    with TemporaryDirectory() as directory:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": f"sqlite:///{Path(directory) / 'dbos.db'}",
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        DBOS.launch()
        chain(5)
        for line in sys.stdin:
            name, *numbers = line.split()
            sys.stdout.write(f"{MEASURES[name](*map(int, numbers))}\n")
            sys.stdout.flush()
        DBOS.destroy()


if __name__ == "__main__":
    main()
