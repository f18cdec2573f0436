"""The four brains on one seeded loop: several hosts on one file, faults everywhere, people who change their minds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from hive_bus.testing import SimulatedLoop, run_simulated
from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.runs_simulation import RunsSimulation
from tests.support.simulated import log_digest

SEEDS = 100
BLOCKS = 10


def _simulate(seed: int, directory: Path, seen: Counter[str] | None = None) -> tuple[list[str], str]:
    """What is wrong at the end of a seed's run, and the digest of its log; ``seen`` counts kills and how runs ended."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{seed}.db"

    async def main(loop: SimulatedLoop) -> list[str]:
        simulation = RunsSimulation(loop, path)
        try:
            return await simulation.run()
        finally:
            if seen is not None:
                seen.update(simulation.ends, kills=simulation.kills)

    try:
        return run_simulated(seed, main), log_digest(path)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        for file in directory.glob(f"{seed}.db*"):
            file.unlink()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_run_ends_or_waits_for_a_person(block: int, tmp_path: Path) -> None:
    """Hosts die and lose wake-ups, people cancel and retry: every rule of a run holds, and the log says all of it."""
    seen: Counter[str] = Counter()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        wrong, _ = _simulate(seed, tmp_path, seen)
        assert wrong == [], f"seed {seed}"
    assert seen["kills"] > 0
    assert seen["workflow.completed"] > 0


def test_more_seeds(tmp_path: Path, fault_seconds: float) -> None:
    """A soak goes on with seeds that nobody has tried."""
    end = time.monotonic() + (fault_seconds if fault_seconds > DEFAULT_FAULT_SECONDS else 0)
    for seed in count(SEEDS):
        wrong, _ = _simulate(seed, tmp_path)
        assert wrong == [], f"seed {seed}"
        if time.monotonic() > end:
            return


@pytest.mark.parametrize("seed", [5, 42])
def test_a_seed_repeats(seed: int, tmp_path: Path) -> None:
    """The same seed gives the same log, row by row, so a failing one can be looked at."""
    assert _simulate(seed, tmp_path / "one")[1] == _simulate(seed, tmp_path / "two")[1]


def test_a_seed_repeats_in_another_process(tmp_path: Path) -> None:
    """Whoever is told a failing seed sees the same run: nothing hangs on the order of hashes or on a process."""
    code = (
        "from pathlib import Path\n"
        "from tests.simulation.test_runs_simulation import _simulate\n"
        f"print(_simulate(7, Path({str(tmp_path)!r}))[1])"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value in ("1", "4711")
    ]
    assert found[0] == found[1] != ""
