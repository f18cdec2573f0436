"""Forks under fault: hosts die and runs are forked at any moment; redrive is silent, and the prefix is shared."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

import pytest

from hive_bus.testing import SimulatedLoop, run_simulated
from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.forks_simulation import ForksSimulation

SEEDS = 8
BLOCKS = 4


def _simulate(seed: int, directory: Path) -> list[str]:
    path = directory / f"{seed}.db"

    async def main(loop: SimulatedLoop) -> list[str]:
        return await ForksSimulation(loop, path).run()

    try:
        return run_simulated(seed, main)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        for file in directory.glob(f"{seed}.db*"):
            file.unlink()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_branch_ends_or_waits_for_a_person(block: int, tmp_path: Path) -> None:
    """Whatever it was forked from and when: every rule of a run holds of it, and the log says all of it."""
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        assert _simulate(seed, tmp_path) == [], f"seed {seed}"


def test_more_seeds(tmp_path: Path, fault_seconds: float) -> None:
    """A soak goes on with seeds that nobody has tried."""
    end = time.monotonic() + (fault_seconds if fault_seconds > DEFAULT_FAULT_SECONDS else 0)
    for seed in count(SEEDS):
        if time.monotonic() > end:
            return
        assert _simulate(seed, tmp_path) == [], f"seed {seed}"
