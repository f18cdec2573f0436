"""Snapshots under fault: whatever hosts begin from while runs are forked and hosts die, it is what the log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hive_bus.brains.fold import Folder
from hive_bus.brains.host import BrainHost
from hive_bus.brains.past import load
from hive_bus.brains.session import Session
from hive_bus.testing import SimulatedLoop, run_simulated
from tests.support.forks_simulation import ForksSimulation
from tests.support.snapshots import behind_every_decision, facts

SEEDS = 4


@pytest.mark.timeout(120)
def test_hosts_begin_where_the_whole_log_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key that a host took up from a snapshot, in its own run or a branch, is the same as folded from the beginning."""
    begun: list[str] = []
    taken_up = BrainHost._load

    async def watched(self: BrainHost[Any], key: str, upto: int) -> Session[Any]:
        session = await taken_up(self, key, upto)
        if session.kept:
            log = self.bus.store.log
            whole = await load(Folder(self.brain), log, key, upto=upto, leave_out=self._discarded)
            begun.append(self.brain.name)
            assert facts(session) == facts(whole), (self.brain.name, key, upto)
        return session

    monkeypatch.setattr(BrainHost, "_load", watched)
    for seed in range(SEEDS):

        async def main(loop: SimulatedLoop, path: Path = tmp_path / f"{seed}.db") -> list[str]:
            return await ForksSimulation(loop, path).run()

        with behind_every_decision():
            assert run_simulated(seed, main) == [], f"seed {seed}"
    assert set(begun) == {"queen", "planner", "reviewer", "drone"}
    assert len(begun) > 8 * SEEDS
