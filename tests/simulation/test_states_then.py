"""A brain at P: what the log alone gives is the state that was live when P had been handled, whatever happened to the hosts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.colony import brains
from hive_bus.brain import Brain, Input
from hive_bus.record import Record
from hive_bus.session import decided_by, fold_topic, key_of
from hive_bus.states import keys_at, state_at
from hive_bus.testing import SimulatedLoop, canonical_state, run_simulated
from tests.support.brains import simulated_bus
from tests.support.runs_simulation import RunsSimulation

MOMENTS = 12
Live = defaultdict[tuple[str, str], list[Any]]
"""The states that any host had behind an event, by brain and event id."""


@contextmanager
def watched() -> Iterator[Live]:
    """Remember every state of every brain in this process."""
    seen: Live = defaultdict(list)

    def watching(evolve: Callable[[Any, Any, Input], Any], name: str) -> Callable[[Any, Any, Input], Any]:
        def watch(self: Brain[Any], state: Any, record: Input) -> Any:
            after = evolve(self, state, record)
            seen[name, record.event_id].append(after)
            return after

        return watch

    with pytest.MonkeyPatch.context() as patch:
        for brain in brains():
            patch.setattr(type(brain), "evolve", watching(type(brain).evolve, brain.name))
        yield seen


@given(seed=st.integers(0, 2**32))
@settings(max_examples=4)
def test_a_brain_then_is_the_one_that_was_live(seed: int) -> None:
    """At random moments of random runs with crashes: every brain, every key, byte for byte."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hive.db"
        with watched() as live:
            assert run_simulated(seed, lambda loop: RunsSimulation(loop, path).run()) == []
        assert run_simulated(seed, lambda loop: _compare(loop, path, live, Random(seed))) > 0


async def _compare(loop: SimulatedLoop, path: Path, live: Live, random: Random) -> int:
    """How many states were compared."""
    compared = 0
    bus = await simulated_bus(loop, path)
    try:
        runs = {record.correlation_id async for record in bus.read("workflow.requested")}
        for run in sorted(runs):
            records = await bus.history(run)
            for at in sorted(random.sample([record.position for record in records], min(MOMENTS, len(records)))):
                for brain in brains():
                    for key in await keys_at(bus.store.log, brain, run, at=at):
                        then = canonical_state(await state_at(bus, brain, key, at=at))
                        folded = [r for r in records if _folds(brain, key, r)]
                        compared += _same(brain, folded, at, then, live)
    finally:
        await bus.close()
    return compared


def _folds(brain: Brain[Any], key: str, record: Record) -> bool:
    return key_of(brain, record) == key and (fold_topic(brain, record.topic) or decided_by(brain, record))


def _same(brain: Brain[Any], folded: list[Record], at: int, then: bytes, live: Live) -> int:
    """1 if the state is one that some host had behind the last event folded; 0 where nothing was folded yet."""
    handled = [row for row in folded if not decided_by(brain, row) and row.position <= at]
    if not handled:
        assert then == canonical_state(brain.initial())
        return 0
    cause = handled[-1]
    own = [row for row in folded if decided_by(brain, row) and row.cause_position == cause.position]
    last = (own or [cause])[-1]
    states = {canonical_state(state) for state in live[brain.name, last.event_id]}
    assert then in states, f"{brain.name} at {at}, behind {last.position} {last.topic}"
    return 1
