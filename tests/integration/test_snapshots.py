"""Snapshots of brains: the state from one and the events behind it is the state from all events, or it is not used."""

from __future__ import annotations

import ast
import asyncio
import importlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.colony import brains
from agents.hive import Hive
from agents.queen import Queen
from agents.what_if import on_terms
from agents.workflows.workflow import Step, Workflow
from hive_bus.brains import snapshots
from hive_bus.brains.brain import Brain, Input
from hive_bus.brains.fold import Folder
from hive_bus.brains.session import Session
from hive_bus.brains.snapshots import Snapshots, code_of
from hive_bus.bus import Bus
from hive_bus.event import Event
from hive_bus.events import WorkflowForked
from hive_bus.opening import open_bus
from hive_bus.replay.redrive import keys_of_run, redrive
from hive_bus.replay.transfer import import_history, read_history
from hive_core_db.records import Appended, Verdict
from tests.golden.record import HISTORIES
from tests.support.snapshots import behind_every_decision, both_ways, keep_all
from tests.support.tables import change, rows

END = 2**63 - 1


class Counted(Event, topic="snapshots.counted"):
    """Something to fold."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there were."""

    count: int = 0


class Counter(Brain[Tally]):
    """Counts, and says so."""

    name = "counter"
    folds = ("snapshots.counted",)

    def initial(self) -> Tally:
        """None."""
        return Tally()

    def evolve(self, state: Tally, record: Input) -> Tally:
        """One more."""
        return Tally(state.count + 1)

    def decide(self, state: Tally, record: Input) -> tuple[Event, ...]:
        """Nothing."""
        return ()


def decided(position: int) -> asyncio.Future[Verdict]:
    """A decision that is in the log."""
    verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    verdict.set_result(Appended(position, position, ()))
    return verdict


async def keep(bus: Bus, brain: Brain[Any], state: Any, position: int, key: str = "run") -> Snapshots[Any]:
    """One snapshot of a state, kept behind a decision."""
    kept = Snapshots(brain, bus.store)
    with behind_every_decision():
        kept.decided(Session(key, state, handled=position - 1, folded=1), decided(position))
    await kept.keep()
    return kept


@pytest.mark.timeout(60)
@pytest.mark.parametrize("file", sorted(HISTORIES.glob("*.jsonl")), ids=lambda file: file.stem)
async def test_a_branch_at_every_position_begins_as_if_all_were_folded(
    file: Path, hive_url: str, database: str
) -> None:
    """Of recorded histories, with a snapshot of each brain behind each of its decisions: the nearest one is used, and nothing differs."""
    async with open_bus(hive_url) as bus:
        await import_history(bus, read_history(file))
        run = (await bus.store.log.read(0, limit=1))[0].correlation_id
        past = await bus.history(run)
        asked = [(brain, Folder(brain), Snapshots(brain, bus.store)) for brain in brains()]
        keys = [(*one, key) for one in asked for key in await keys_of_run(bus.store.log, one[0], run)]
        for brain, _, _, key in keys:
            assert await keep_all(bus, brain, key, last=past[-1].position)
        used = 0
        for record in past if database == "sqlite" else past[::9]:
            branch = f"{run}-{record.position}"
            forked = WorkflowForked(parent=run, position=record.position, models={"": "other"})
            at = await bus.publish(forked, stream=f"{branch}/run", correlation_id=branch)
            for _, folder, kept, key in keys:
                near, told, whole = await both_ways(bus, folder, kept, branch + key.removeprefix(run), upto=at - 1)
                assert told == whole, (key, record.position)
                used += bool(near)
        for _, folder, kept, key in keys:
            near, told, whole = await both_ways(bus, folder, kept, key, upto=past[-1].position)
            assert told == whole
            assert near
        assert used


async def _run(hive: Hive) -> str:
    """A run of steps that ends."""
    steps = tuple(Step(id=f"s{n}", needs=(f"s{n - 1}",) if n else (), tool="noop") for n in range(6))
    run = await hive.start(Workflow(name="w", steps=steps), id="long-run")
    await run.result(within=30)
    return run.id


async def _branch(hive: Hive, run: str, name: str) -> list[str]:
    """What happens in a branch of a run as it was when it had a plan."""
    planned = next(one for one in await hive.bus.history(run) if one.topic == "workflow.plan_generated")
    branch = await hive.fork(run, at=planned.position, id=name)
    await branch.result(within=30)
    return [one.topic for one in await hive.bus.history(branch.id) if one.correlation_id == branch.id]


async def test_another_process_goes_on_from_what_a_run_left(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots outlive their process; a branch of a later one begins from them, ends as one without, and redrives silently."""
    found: list[bool] = []
    nearest = Snapshots.nearest

    async def watched(self: Snapshots[Any], key: str, left_out: Any) -> Any:
        start = await nearest(self, key, left_out)
        found.append(start is not None)
        return start

    monkeypatch.setattr(Snapshots, "nearest", watched)
    with behind_every_decision():
        async with Hive(hive_url) as hive:
            run = await _run(hive)
        assert rows(hive_url, "SELECT DISTINCT brain FROM snapshots ORDER BY brain") == [("planner",), ("queen",)]
    async with Hive(hive_url) as hive:
        told = await _branch(hive, run, "with-them")
    assert any(found)
    change(hive_url, "DELETE FROM snapshots")
    found.clear()
    async with Hive(hive_url) as hive:
        without = await _branch(hive, run, "without-them")
        assert told == without
        assert told[-1] == "workflow.completed"
        assert not any(found)
        for brain in brains():
            for key in await keys_of_run(hive.bus.store.log, brain, "with-them"):
                assert [one async for one in redrive(hive.bus.store.log, brain, key, upto=END)] == []


async def test_a_broken_snapshot_costs_time_alone(hive_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no state, or would make more than values, are passed over: the past is folded from its beginning."""
    async with open_bus(hive_url) as bus:
        kept = await keep(bus, Counter(), Tally(3), 5)
        assert (await kept.nearest("run", {})) is not None
        for body in ("00", "78da6b60992a2a00031b015f"):
            change(hive_url, f"UPDATE snapshots SET body = {_bytes(hive_url, body)}")
            assert await kept.nearest("run", {}) is None


def _bytes(url: str, text: str) -> str:
    return f"x'{text}'" if "postgres" not in url else f"'\\x{text}'::bytea"


async def test_other_code_begins_anew(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of another digest is not found; the first that the new code keeps removes what the old one left."""
    async with open_bus(hive_url) as bus:
        await keep(bus, Counter(), Tally(3), 5)
        monkeypatch.setattr(snapshots, "code_of", lambda _: "other code")
        other = Snapshots(Counter(), bus.store)
        assert await other.nearest("run", {}) is None
        assert rows(hive_url, "SELECT decided FROM snapshots") == [(5,)]
        await keep(bus, Counter(), Tally(9), 12)
        assert rows(hive_url, "SELECT decided, code FROM snapshots") == [(12, "other code")]


async def test_what_was_discarded_later_is_in_no_state(hive_url: str) -> None:
    """A snapshot behind a position that people discarded of its key is not used; one before it is, and other keys' do not matter."""
    async with open_bus(hive_url) as bus:
        await keep(bus, Counter(), Tally(3), 5)
        kept = await keep(bus, Counter(), Tally(7), 11)
        found = [await kept.nearest("run", one) for one in ({}, {8: "run"}, {11: "run"}, {8: "other"}, {3: "run"})]
        assert [one and one.state.count for one in found] == [7, 3, 3, 7, None]


async def test_what_a_branch_edits_is_in_no_state_that_it_begins_from(hive_url: str) -> None:
    """A branch with another body for an inherited event begins before it; one that edits nothing, behind it."""
    async with open_bus(hive_url) as bus:
        for _ in range(6):
            await bus.publish(Counted(), stream="run/run", correlation_id="run")
        (third,) = await bus.store.log.read(2, limit=1)
        await keep(bus, Counter(), Tally(1), 2)
        kept = await keep(bus, Counter(), Tally(4), 5)
        edited: dict[str, Any] = {third.event_id: {}}
        for name, edits, at in (("plain", {}, 6), ("edited", edited, 6), ("early", {}, 4)):
            body = WorkflowForked(parent="run", position=at, edits=edits)
            await bus.publish(body, stream=f"{name}/run", correlation_id=name)
        found = [await kept.nearest(name, {}) for name in ("plain", "edited", "early")]
        assert [one and one.state.count for one in found] == [4, 1, 1]


async def test_a_decision_that_is_not_in_the_log_leaves_none(hive_url: str) -> None:
    """Refused, failed or still on its way: only the last of these is asked again."""
    async with open_bus(hive_url) as bus:
        kept = Snapshots(Counter(), bus.store)
        failed: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        pending: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        failed.set_exception(TimeoutError())
        with behind_every_decision():
            for key, verdict in (("failed", failed), ("pending", pending)):
                kept.decided(Session(key, Tally(1), handled=2, folded=1), verdict)
        await kept.keep()
        assert rows(hive_url, "SELECT key FROM snapshots") == []
        pending.set_result(Appended(3, 3, ()))
        await kept.keep()
        assert rows(hive_url, "SELECT key, handled, decided FROM snapshots") == [("pending", 2, 3)]


async def test_snapshots_become_rarer_as_a_run_grows(hive_url: str) -> None:
    """One in a thousand events at first, then one in an eighth of the past: a few dozen of a hundred thousand."""
    async with open_bus(hive_url) as bus:
        kept = Snapshots(Counter(), bus.store)
        session: Session[Tally] = Session("run", Tally())
        for number in range(1, 100_001):
            session.folded, session.handled = number, number
            if number % 10 == 0:
                kept.decided(session, decided(number))
                await kept.keep()
        folded = [row[0] for row in rows(hive_url, "SELECT folded FROM snapshots ORDER BY folded")]
        assert folded[:8] == [1000 * number for number in range(1, 9)]
        assert len(folded) == 26
        assert max(later - one for one, later in pairwise(folded)) < 100_000 / 7


class Given(Counter):
    """Told something that its source does not say."""

    def __init__(self, limit: int) -> None:
        self.limit = limit


class Holding(Counter):
    """Its state is no value."""

    def initial(self) -> Any:
        """A function."""
        return lambda: None


def test_a_brain_that_is_more_than_its_source_has_no_code() -> None:
    """Ours, and any class of a module, are known by their source; what was given something or made by a program is not."""
    told = WorkflowForked(parent="run", position=1)
    assert all(code_of(brain) for brain in (*brains(), Counter()))
    assert len({code_of(brain) for brain in (*brains(), Counter())}) == 5
    assert code_of(Given(3)) == code_of(on_terms(Queen(), told, "run")) == ""


async def test_a_state_without_bytes_is_done_without(hive_url: str) -> None:
    """Its brain goes on as if there were no snapshots."""
    async with open_bus(hive_url) as bus:
        kept = await keep(bus, Holding(), Holding().initial(), 5)
        with behind_every_decision():
            kept.decided(Session("run", Tally(), handled=8, folded=9), decided(9))
        await kept.keep()
        assert rows(hive_url, "SELECT key FROM snapshots") == []
        assert await kept.nearest("run", {}) is None


def test_a_changed_source_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that changed in a module beside the brain's is enough; what lies in other packages is not asked."""
    package = tmp_path / "beekeeper"
    package.mkdir()
    for name in ("__init__", "words"):
        (package / f"{name}.py").write_text("")
    (package / "brain.py").write_text(
        "from tests.integration.test_snapshots import Counter\n\n\nclass Mine(Counter): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    brain: Brain[Any] = importlib.import_module("beekeeper.brain").Mine()
    before = code_of(brain)
    assert before == code_of(brain) != ""
    (package / "words.py").write_text("HONEY = 1\n")
    assert code_of(brain) == before  # what this process runs is what it had read
    snapshots._digest.cache_clear()
    assert code_of(brain) != before


def test_our_brains_reach_nothing_that_their_code_leaves_out() -> None:
    """Every module of agents that a brain imports, directly or through others, lies in a directory that the digest is of."""
    for brain in brains():
        kind = type(brain)
        told = {_source(name).parent for name in (kind.__module__, *brain.modules)}
        reached, waiting = set[str](), [kind.__module__]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += _imports(name)
        assert len(reached) > 2
        assert [name for name in sorted(reached) if not any(map(_source(name).is_relative_to, told))] == []


def _source(module: str) -> Path:
    file = importlib.import_module(module).__file__
    assert file is not None
    return Path(file)


def _imports(module: str) -> list[str]:
    """The modules of agents that a module imports by name."""
    nodes = ast.walk(ast.parse(_source(module).read_text()))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return [name for name in names if name.startswith("agents.")]
