"""What replay promises, of random runs with random crashes and forks: four properties of every run and every branch."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.colony import brains
from dashboard.views import compare, read_comparison
from hive_bus.brains.brain import Brain
from hive_bus.brains.fold import decided_by, fold_topic, key_of
from hive_bus.bus import Bus
from hive_bus.lineage import lineage, run_of
from hive_bus.record import Record
from hive_bus.replay.redrive import keys_of_run, redrive
from hive_bus.replay.states import keys_at, state_at
from hive_bus.testing import SimulatedLoop, canonical_state, run_simulated
from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.brains import simulated_bus
from tests.support.forks_simulation import TERMS, ForksSimulation, PlannedFork
from tests.support.live_states import Live, watched

pytestmark = pytest.mark.may_block("the store answers inline: all that is asked of a log is one callback")

EXAMPLES = 8
SECONDS_EACH = 2.0
MOMENTS = 8
Forks = list[PlannedFork]

SEEDS = st.integers(0, 2**32)
FORKS = st.lists(
    st.builds(
        PlannedFork,
        after=st.integers(0, 6),
        parent=st.integers(-2, 2),
        at=st.integers(0, 100),
        terms=st.sampled_from([*TERMS, {"prompts": {"": "Be brief."}, "review": False}, {"approve": "none"}]),
    ),
    min_size=1,
    max_size=4,
)
CHAIN = [
    PlannedFork(after=4, parent=0, at=60),
    PlannedFork(after=3, parent=-1, at=90, terms=TERMS[3]),
    PlannedFork(after=2, parent=-1, at=40, terms=TERMS[1]),
    PlannedFork(after=2, parent=-2, at=100, terms=TERMS[2]),
]
"""Forks of forks: one of what its parent had inherited, one of a parent's very last event."""


@pytest.mark.timeout(1200)
def test_what_replay_promises() -> None:
    """Redrive is silent, `at(P)` is what was live then, nothing differs from itself, a fork's prefix is its parent's."""
    seen: Counter[str] = Counter()
    _property(EXAMPLES, seen)()
    assert [name for name in ("kills", "forks", "forks of forks", "live", "inherited") if not seen[name]] == []
    assert seen["live"] > 2 * seen["unseen"]


def test_more_of_it(fault_seconds: float) -> None:
    """A soak asks of as many runs as its time is enough for."""
    if fault_seconds > DEFAULT_FAULT_SECONDS:
        _property(int(fault_seconds / SECONDS_EACH), Counter())()


def _property(examples: int, seen: Counter[str]) -> Callable[[], None]:
    """All four, of so many simulations; ``seen`` counts what was met in them."""

    @given(seed=SEEDS, forks=FORKS)
    @settings(max_examples=examples)
    @example(seed=3, forks=CHAIN)
    def promised(seed: int, forks: Forks) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "hive.db"
            with watched() as live:
                shared = run_simulated(seed, lambda loop: _lived(loop, path, forks, seen))
            wrong = run_simulated(seed, lambda loop: _replayed(loop, path, live, shared, seen))
        assert wrong == []

    return promised


async def _lived(loop: SimulatedLoop, path: Path, forks: Forks, seen: Counter[str]) -> dict[str, list[Record]]:
    """Let it happen; what each branch was to inherit, as it was read when it was forked."""
    simulation = ForksSimulation(loop, path, forks)
    assert await simulation.run() == []
    seen.update(simulation.ends, kills=simulation.kills, forks=len(simulation.shared))
    return simulation.shared


async def _replayed(
    loop: SimulatedLoop, path: Path, live: Live, shared: dict[str, list[Record]], seen: Counter[str]
) -> list[str]:
    """What does not hold, asked of nothing but the log, by a bus that was not there."""
    random = loop.random
    bus = await simulated_bus(loop, path)
    try:
        runs = [one.correlation_id async for one in bus.read("workflow.requested", "workflow.forked")]
        assert set(runs) >= set(shared)
        wrong: list[str] = []
        for run in runs:
            past = await bus.history(run)
            moments = sorted(random.sample([record.position for record in past], min(MOMENTS, len(past))))
            wrong += [f"{run}: {said}" async for said in _redriven(bus, run, random.choice(moments))]
            wrong += [f"{run}: {said}" async for said in _then(bus, run, moments, live, seen)]
            wrong += [f"{run}: {said}" async for said in _beside_itself(bus, run, random.choice(moments))]
        for branch, inherited in shared.items():
            wrong += [f"{branch}: {said}" async for said in _inherits(bus, branch, inherited, seen)]
    finally:
        await bus.close()
    return wrong


async def _redriven(bus: Bus, run: str, moment: int) -> AsyncIterator[str]:
    """Redrive is silent: of the whole run, and of the run up to a moment."""
    for upto in (moment, await bus.head()):
        for brain in brains():
            for key in await keys_of_run(bus.store.log, brain, run):
                async for difference in redrive(bus.store.log, brain, key, upto=upto):
                    yield f"redriven up to {upto}: {difference}"


async def _then(bus: Bus, run: str, moments: Sequence[int], live: Live, seen: Counter[str]) -> AsyncIterator[str]:
    """`at(P)` equals the state that was live after P was handled; before a run was forked that is its parent's."""
    segments = await lineage(bus.store.log, run)
    past = await bus.history(run)
    for at in moments:
        owner = next(segment for segment in segments if not segment.ends_before(at))
        for brain in brains():
            for key in await keys_at(bus.store.log, brain, run, at=at):
                name = owner.correlation_id + key.removeprefix(run)
                own = [record for record in past if record.correlation_id == owner.correlation_id]
                hosts = _hosts_then(brain, name, own, at, live)
                seen["live" if hosts else "unseen"] += 1
                seen["inherited"] += bool(hosts) and owner is not segments[-1]
                states = {canonical_state(state) for state in hosts}
                if hosts and states != {canonical_state(await state_at(bus, brain, key, at=at))}:
                    yield f"{brain.name} of {key} at {at} is none that was live ({len(states)} were)"


def _hosts_then(brain: Brain[Any], key: str, own: Sequence[Record], at: int, live: Live) -> Sequence[Any]:
    """The states that hosts had behind the last input of the key up to ``at``, among the events ``own`` of one run.

    Empty where the key had no input there, or where the only host that handled it died with its state.
    """
    inputs = [
        record.position
        for record in own
        if record.position <= at
        and key_of(brain, record) == key
        and fold_topic(brain, record.topic)
        and not decided_by(brain, record)
    ]
    if not inputs:
        return ()
    handled = sorted(live[brain.name, key])
    last = handled[bisect_right(handled, at) - 1] if handled else 0
    return live[brain.name, key][last] if inputs[-1] <= last <= at else ()


async def _beside_itself(bus: Bus, run: str, moment: int) -> AsyncIterator[str]:
    """`diff(a, a)` is empty: of the whole run, and of the run as it was at a moment."""
    then = await bus.history(run, at=moment)
    for comparison in (await read_comparison(bus, run, run), compare(run, then, run, then)):
        if not comparison.empty:
            yield f"differs from itself: {comparison.as_dict()}"


async def _inherits(bus: Bus, branch: str, inherited: Sequence[Record], seen: Counter[str]) -> AsyncIterator[str]:
    """The prefix of a fork is identical: what was its parent's past when it was forked, event by event; the rest is its own."""
    segments = await lineage(bus.store.log, branch)
    forked = segments[-1].forked
    assert forked is not None
    body = Record._make(forked).data
    seen["forks of forks"] += len(segments) > 2
    history = await bus.history(branch)
    if history[: len(inherited)] != list(inherited):
        yield "its prefix is not what it was to inherit"
    if await bus.history(branch, at=body["position"]) != await bus.history(body["parent"], at=body["position"]):
        yield f"at {body['position']} it is not its parent {body['parent']}"
    if {record.correlation_id for record in history[len(inherited) :]} != {branch}:
        yield "what follows is not its own"
    for brain in brains():
        for key in await keys_at(bus.store.log, brain, branch, at=body["position"]):
            parents = body["parent"] + key.removeprefix(run_of(key))
            states = [await state_at(bus, brain, one, at=body["position"]) for one in (key, parents)]
            if canonical_state(states[0]) != canonical_state(states[1]):
                yield f"{brain.name} of {key} is not its parent's at {body['position']}"
