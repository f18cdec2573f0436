"""The whole of floor 3 on one seeded loop: several hosts on one file, faults everywhere, virtual time."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

import pytest

from hive_bus.testing import SimulatedLoop, run_simulated
from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.shop_simulation import ShopSimulation
from tests.support.simulated import log_digest

SEEDS = 100
BLOCKS = 10


def _simulate(seed: int, directory: Path) -> tuple[list[str], str, int]:
    """What is wrong at the end of a seed's run, the digest of its log, and how many hosts died."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{seed}.db"
    kills = []

    async def main(loop: SimulatedLoop) -> list[str]:
        simulation = ShopSimulation(loop, path)
        try:
            return await simulation.run()
        finally:
            kills.append(simulation.kills)

    try:
        return run_simulated(seed, main), log_digest(path), kills[0]
    finally:
        for file in directory.glob(f"{seed}.db*"):
            file.unlink()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_order_ends_well_whatever_happens_to_the_hosts(block: int, tmp_path: Path) -> None:
    """Hosts die, stop and lose wake-ups: all orders close, the auditor is content, live states are what the log makes."""
    kills = 0
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        wrong, _, killed = _simulate(seed, tmp_path)
        assert wrong == [], f"seed {seed}"
        kills += killed
    assert kills > 0


def test_more_seeds(tmp_path: Path, fault_seconds: float) -> None:
    """A soak goes on with seeds that nobody has tried."""
    end = time.monotonic() + (fault_seconds if fault_seconds > DEFAULT_FAULT_SECONDS else 0)
    for seed in count(SEEDS):
        wrong, _, _ = _simulate(seed, tmp_path)
        assert wrong == [], f"seed {seed}"
        if time.monotonic() > end:
            return


@pytest.mark.parametrize("seed", [3, 77])
def test_a_seed_repeats(seed: int, tmp_path: Path) -> None:
    """The same seed gives the same log, row by row, so a failing one can be looked at."""
    assert _simulate(seed, tmp_path / "one")[1] == _simulate(seed, tmp_path / "two")[1]
