"""Processes that share one database are killed at any moment, again and again; in the end everything is as it should be."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hive_core_db.audit import audit
from tests.conftest import DEFAULT_FAULT_SECONDS, HiveUrls
from tests.support.crash_points import wrong
from tests.support.patience import WITHIN
from tests.support.simulated import vocabulary
from tests.support.tables import file_of
from tests.support.unmeasured import unmeasured

ORDERS = 40
KILLS = {"sqlite": 12, "postgres": 6}
SOAK_KILLS = 200


def _start(url: str, ledger: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.crash", url, str(ledger), str(ORDERS)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=unmeasured())


@pytest.mark.timeout(1800)
def test_killed_at_random(tmp_path: Path, database: str, hive_urls: HiveUrls, fault_seconds: float) -> None:
    """Two processes host the shop; one of them is killed at a random moment and started again, until all is done."""
    chance = random.Random(11)
    kills = SOAK_KILLS if fault_seconds > DEFAULT_FAULT_SECONDS else KILLS[database]
    killed, number = 0, 0
    while killed < kills:
        url, ledger = hive_urls(), tmp_path / f"{number}.ledger"
        number += 1
        killed += _one_database(url, ledger, chance, kills - killed)
        assert wrong(url, ledger, ORDERS) == [], url


def _one_database(url: str, ledger: Path, chance: random.Random, most: int) -> int:
    """Kill until ``most`` kills or all orders are closed; returns how many kills it took."""
    processes = [_start(url, ledger) for _ in range(2)]
    killed = 0
    try:
        while killed < most and any(process.poll() is None for process in processes):
            victim = chance.randrange(2)
            try:
                processes[victim].wait(timeout=0.3 + chance.expovariate(4))
            except subprocess.TimeoutExpired:
                processes[victim].kill()
                processes[victim].wait()
                killed += 1
                # At once, while the other goes on: whatever the dead one left half done must already be sound.
                # Where the first of all was killed before it made the file, there is nothing to audit.
                path = file_of(url)
                if path is None or path.exists():
                    assert [str(finding) for finding in audit(url, vocabulary=vocabulary())] == []
                processes[victim] = _start(url, ledger)
            else:
                break
        end = time.monotonic() + WITHIN
        assert [process.wait(timeout=max(1.0, end - time.monotonic())) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return killed
