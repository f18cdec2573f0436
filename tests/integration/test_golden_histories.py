"""Histories that were once recorded are decided the same today, and one changed rule in a brain is named where it first matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import agents.prompts
import agents.queen
import agents.queen_tasks
import hive_bus.event
from agents.colony import brains
from agents.drone import Drone
from agents.planner import Planner
from agents.queen import Queen
from agents.reviewer import Reviewer
from dashboard.cli.checks import redrive as redrive_command
from dashboard.cli.exits import FAILED
from dashboard.cli.redriving import differences_of_file
from dashboard.cli.shell import Shell
from hive_bus.brains.brain import Input
from hive_bus.event import Draft, Event
from hive_bus.events.drone import DroneMessage
from hive_bus.events.model import ModelRequested
from hive_bus.events.workflow import WorkflowStarted
from hive_bus.opening import open_bus
from hive_bus.replay.redrive import Difference, keys_of_run, redrive
from hive_bus.replay.transfer import export_history, import_history, read_history
from hive_core_db.audit import audit
from tests.golden.record import HISTORIES
from tests.support.console import Console

FILES = sorted(HISTORIES.glob("*.jsonl"))
DEMO = HISTORIES / "demo-0.1.0.jsonl"
Rule = Callable[[pytest.MonkeyPatch], None]


async def _differences(file: Path) -> list[Difference]:
    return [difference async for _, difference in differences_of_file(file)]


def _positions(topic: str, brain: str, payload: str = "") -> list[int]:
    """Where in the demo's history the brain was told of such an event."""
    rows = read_history(DEMO)
    found = [row for row in rows if row.topic == topic and payload in row.payload]
    causes = {row.cause_position for row in rows if (row.decided_by or "").startswith(f"{brain}@")}
    return [row.position for row in found if row.position in causes]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_recorded_history_is_decided_the_same_today(file: Path) -> None:
    """Every decision of all four brains, event by event and byte by byte; no model is called for it."""
    assert [f"position {one.position}, {one.brain}" for one in await _differences(file)] == []


def test_the_demo_s_history_is_worth_redriving() -> None:
    """It is a whole run: a plan, two drones, a refusal and its rework, a merge, an end; decided by all four brains."""
    rows = read_history(DEMO)
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    deciders = {(row.decided_by or "").partition("@")[0] for row in rows} - {""}
    assert deciders == {brain.name for brain in brains()}
    drones = {row.stream.rpartition("/")[2] for row in rows if row.topic == "drone.hatched"}
    assert drones == {"fix.1", "fix.2", "readme.1"}
    assert len(_positions("task.review_completed", "queen", "changes_requested")) == 1
    assert rows[-1].topic == "workflow.completed"


def _other_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents.queen_tasks, "REVIEW_ROUNDS", 1)


def _silent_drone(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = Drone.decide

    def silent(self: Drone, state: Any, record: Input) -> Sequence[Event | Draft]:
        return [one for one in decide(self, state, record) if not isinstance(one, DroneMessage)]

    monkeypatch.setattr(Drone, "decide", silent)


def _other_words(monkeypatch: pytest.MonkeyPatch, brain: type[Planner | Reviewer]) -> None:
    decide: Callable[..., Sequence[Event | Draft]] = brain.decide

    def wordy(self: Any, state: Any, record: Input) -> Sequence[Event | Draft]:
        told = decide(self, state, record)
        return [one.model_copy(update={"max_tokens": 99}) if isinstance(one, ModelRequested) else one for one in told]

    monkeypatch.setattr(brain, "decide", wordy)


def _broken_queen(monkeypatch: pytest.MonkeyPatch) -> None:
    evolve = Queen.evolve

    def broken(self: Queen, state: Any, record: Input) -> Any:
        if record.topic == "task.review_completed" and getattr(record.event, "verdict", "") == "changes_requested":
            raise KeyError("verdict")
        return evolve(self, state, record)

    monkeypatch.setattr(Queen, "evolve", broken)


@pytest.mark.parametrize(
    ("rule", "brain", "topic", "payload"),
    [
        (_other_rule, "queen", "task.review_completed", "changes_requested"),
        (_silent_drone, "drone", "model.responded", '"text","text":'),
        (lambda patch: _other_words(patch, Planner), "planner", "workflow.plan_requested", ""),
        (lambda patch: _other_words(patch, Reviewer), "reviewer", "task.review_requested", ""),
    ],
    ids=["queen", "drone", "planner", "reviewer"],
)
async def test_one_changed_rule_is_named_where_it_matters(
    rule: Rule, brain: str, topic: str, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each difference is at an event that the rule is about, and nothing that followed from it is blamed on it again."""
    rule(monkeypatch)
    found = await _differences(DEMO)
    assert {one.brain.partition("@")[0] for one in found} == {brain}
    assert {one.topic for one in found} == {topic}
    places = _positions(topic, brain, payload)
    assert min(one.position for one in found) == places[0]
    assert {one.position for one in found} <= set(places)


def _other_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents.prompts, "_DRONE", agents.prompts._DRONE.replace("and use no tool", "and use no hammer"))


def _other_field(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(WorkflowStarted):
        shift: str = "day"

    Wider.TOPIC = WorkflowStarted.TOPIC
    monkeypatch.setitem(hive_bus.event._registry, Wider.TOPIC, Wider)
    monkeypatch.setattr(agents.queen, "WorkflowStarted", Wider)


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        (
            _other_word,
            ("workflow.plan_generated", "queen"),
            ("the queen decides otherwise", "  ~ drone.hatched in ", "    - system: …", "use no tool", "use no hammer"),
        ),
        (
            _other_rule,
            ("task.review_completed", "queen"),
            ("the queen decides otherwise", '  state tasks.fix.phase: "judging" -> "judged"', "  - task.retried in "),
        ),
        (
            _other_field,
            ("workflow.requested", "queen"),
            ("the queen decides otherwise", "  ~ workflow.started in ", "    - shift: (none)", '    + shift: "day"'),
        ),
    ],
    ids=["a word of a prompt", "a rule of a brain", "a field of an event"],
)
async def test_the_first_difference_is_named_exactly(
    change: Rule,
    place: tuple[str, str],
    said: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One difference: where, the state that led to it, then and now, field by field; the others when they are asked for."""
    shell = Shell(db=None, json=False, verbose=False, debug=False)
    change(monkeypatch)
    assert await redrive_command(shell, [str(DEMO)]) == FAILED
    written = capsys.readouterr()
    position = _positions(*place, "changes_requested" if change is _other_rule else "")[0]
    (head,) = [line for line in written.out.splitlines() if line.startswith("run ")]
    assert f" position {position} {place[0]}: " in head
    assert [one for one in said if one not in written.out] == []
    assert "--all-differences" in written.err
    assert await redrive_command(shell, [str(DEMO)], each=True) == FAILED
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]) >= 1


async def test_both_decisions_stand_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drone that says nothing differs from the recorded one in its messages alone."""
    _silent_drone(monkeypatch)
    found = await _differences(DEMO)
    assert len(found) > 5
    for one in found:
        assert one.today == tuple(row for row in one.recorded if row[1] != "drone.message")


async def test_a_brain_that_fails_on_an_old_event_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`hive redrive FILE` ends with 1 and names run, position, brain and error; unchanged it says nothing and ends with 0."""
    shell = Shell(db=None, json=False, verbose=False, debug=False)
    assert await redrive_command(shell, [str(DEMO)]) is None
    assert capsys.readouterr().out == ""
    _broken_queen(monkeypatch)
    assert await redrive_command(shell, [str(DEMO)]) == FAILED
    said = capsys.readouterr().out
    (position,) = _positions("task.review_completed", "queen", "changes_requested")
    assert f"position {position} task.review_completed: the queen decides otherwise" in said
    assert "KeyError: 'verdict'" in said


async def test_a_hive_that_imports_it_gives_the_same_answer_as_the_file(hive_url: str, tmp_path: Path) -> None:
    """In another hive, under other positions, the history passes the auditor, redrives silently, and is exported as it was."""
    rows = read_history(DEMO)
    async with open_bus(hive_url) as bus:
        for number in range(3):
            await bus.publish(
                Draft(event=DroneMessage(drone_id="d", text=str(number)), correlation_id="something-else")
            )
        (done,) = await import_history(bus, rows)
        assert not done.already
        run = await bus.resolve("@")
        found = [
            difference
            for brain in brains()
            for key in await keys_of_run(bus.store.log, brain, run)
            async for difference in redrive(bus.store.log, brain, key, upto=await bus.head())
        ]
        assert found == []
        await export_history(bus.store.log, tmp_path / "again.jsonl", run=run)
    assert await asyncio.to_thread(lambda: list(map(str, audit(hive_url)))) == []
    again = read_history(tmp_path / "again.jsonl")
    first = again[0].position
    kept = [row for row in rows if not row.topic.startswith("agent.")]
    places = {row.position: first + number for number, row in enumerate(kept)}
    assert again == [
        row._replace(
            position=places[row.position],
            append_first=first,
            cause_position=row.cause_position and places[row.cause_position],
        )
        for row in kept
    ]


def test_every_run_of_the_demo_redrives_silently(tmp_path: Path) -> None:
    """The demo, and the demo that must fail: today's decisions are those in the log, from the database and from an export."""
    console = Console(tmp_path)
    assert console("demo").code == 0
    assert console("demo", "--break").code == 1
    found = console("redrive", "--all")
    assert (found.code, found.out, found.err) == (0, "", "")
    assert console("history", "export", "--all", "both.jsonl").code == 0
    found = console("redrive", "both.jsonl")
    assert (found.code, found.out, found.err) == (0, "", "")
