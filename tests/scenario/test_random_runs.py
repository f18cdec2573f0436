"""Random workflows, random orders, random misfortune: what always holds of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.drone import Drone
from agents.planner import Planner
from agents.queen import Queen
from agents.reviewer import Reviewer
from hive_bus.effects import Intent
from hive_bus.event import Event
from hive_bus.events.approval import ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalRequested
from hive_bus.events.drone import DroneInterruptRequested
from hive_bus.events.model import ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.task import TaskReady, TaskRetryRequested, TaskReturned
from hive_bus.events.timer import TimerFired, TimerSet
from hive_bus.events.tool import ToolFailed, ToolRequested, ToolReturned
from hive_bus.events.workflow import (
    WorkflowCancelRequested,
    WorkflowPauseRequested,
    WorkflowRequested,
    WorkflowResumeRequested,
)
from hive_bus.record import Record
from tests.support.scenario import Hive, asked

TOOLS = ({"name": "edit", "description": "edits", "input_schema": {"type": "object"}, "effect": "idempotent"},)
ENDS = ("workflow.completed", "workflow.failed", "workflow.cancelled")
TASK_ENDS = ("task.completed", "task.failed", "task.skipped", "task.cancelled")


def some_steps(chance: Random) -> list[dict[str, Any]]:
    """A random workflow: any kinds, needs, conditions, approvals, reviews and retries."""
    steps: list[dict[str, Any]] = []
    for number in range(chance.randint(1, 7)):
        needs = [step["id"] for step in steps if chance.random() < 0.4]
        step: dict[str, Any] = {"id": f"s{number}", "needs": needs, "retries": chance.choice([0, 0, 1, 2])}
        kind = chance.choice(["run", "run", "tool", "prompt", "prompt"])
        value = f" {{{{ steps.{needs[0]}.output }}}}" if needs else ""
        step[kind] = "noop" if kind == "tool" else f"do{value}"
        if kind == "prompt":
            step["review"] = chance.choice([0, 1, 2])
        conditions = [None, None, "always()", *(f"failed('{need}')" for need in needs), "failed()"]
        step["when"] = chance.choice(conditions)
        step["approval"] = chance.random() < 0.15
        step["priority"] = chance.randint(1, 9)
        steps.append(step)
    return steps


def some_end(chance: Random, intent: Intent) -> Event:
    """A random end of an intent, such as a hand, a person or the clock may bring."""
    match intent:
        case TaskReady(task_id=task):
            outcome: Any = chance.choice(["completed"] * 5 + ["failed", "failed", "unknown"])
            return TaskReturned(task_id=task, outcome=outcome, output="x")
        case ApprovalRequested(approval_id=question):
            kind: Any = chance.choice([ApprovalGranted, ApprovalGranted, ApprovalDenied, ApprovalExpired])
            return kind(approval_id=question)  # type: ignore[no-any-return]
        case TimerSet(timer_id=name):
            return TimerFired(timer_id=name)
        case ModelRequested():
            return some_reply(chance, intent)
        case ToolRequested(tool="workspace.integrate") if chance.random() < 0.3:
            return ToolReturned(is_error=True, data={"conflicts": ["a"], "head": "m"})
        case ToolRequested() if chance.random() < 0.15:
            return ToolFailed(reason="bad luck", kind=chance.choice(["unknown", "error"]))
        case ToolRequested():
            commit = f"c{chance.randint(0, 99)}"
            return ToolReturned(output="ok", commit=commit, data={"head": commit}, tool_use_id=intent.tool_use_id)
        case _:
            raise AssertionError(intent)


def some_reply(chance: Random, call: ModelRequested) -> Event:
    """What a model may say: verdicts, tool uses, plans, nonsense, or nothing at all."""
    if chance.random() < 0.05:
        return ModelFailed(reason="overloaded")
    text, uses, stop = "well", [], "end_turn"
    if call.role == "reviewer":
        verdict = chance.choice(["approved", "approved", "changes_requested", "rejected", "perhaps"])
        text = json.dumps({"verdict": verdict, "comments": []})
    elif call.role == "planner":
        text = json.dumps({"steps": some_steps(chance)}) if chance.random() < 0.7 else "no"
    elif call.turn < 4 and chance.random() < 0.6:
        names = [chance.choice(["edit", "edit", "saw"]) for _ in range(chance.randint(1, 3))]
        uses = [
            {"type": "tool_use", "id": f"u{call.turn}-{number}", "name": name, "input": {}}
            for number, name in enumerate(names)
        ]
        stop = "tool_use"
    elif call.turn < 6:
        stop = chance.choice(["end_turn", "end_turn", "max_tokens", "refusal"])
    content = [{"type": "text", "text": text}, *uses]
    return ModelResponded(message={"role": "assistant", "content": content}, stop_reason=stop)


def some_word(chance: Random, hive: Hive, *, cancels: bool) -> None:
    """A person says something, helpful or not."""
    tasks = [f"s{number}" for number in range(7)]
    match chance.randint(0, 6 if cancels else 5):
        case 0:
            hive.given(WorkflowPauseRequested(), settle=False)
        case 1 | 2:
            hive.given(WorkflowResumeRequested(), settle=False)
        case 3:
            hive.given(TaskRetryRequested(task_id=chance.choice(tasks)), settle=False)
        case 4:
            hive.given(ApprovalGranted(approval_id=f"{chance.choice(tasks)}.1"), settle=False)
        case 5:
            drone = f"{chance.choice(tasks)}.1"
            if any(record.stream.endswith(f"drone/{drone}") for record in hive.log):
                hive.given(DroneInterruptRequested(drone_id=drone), stream=f"drone/{drone}", settle=False)
        case _:
            hive.given(WorkflowCancelRequested(reason="enough"), settle=False)


def a_random_run(chance: Random) -> Hive:
    """Everything in random order until nothing is open and nobody has anything left to read."""
    hive = Hive(Queen(), Planner(), Reviewer(), Drone(), choose=chance.randrange)
    fields: dict[str, Any] = {"tools": TOOLS, "max_parallel": chance.randint(1, 4)}
    fields["workspace"] = chance.choice([{}, {"path": "w"}, {"path": "w", "base": "c"}])
    goal = chance.random() < 0.3
    request = WorkflowRequested(goal="peace", **fields) if goal else asked(*some_steps(chance), **fields)
    hive.given(request, settle=False)
    cancels = chance.random() < 0.3
    words = chance.randint(0, 6)
    for _ in range(5_000):
        if words and chance.random() < 0.05:
            words -= 1
            some_word(chance, hive, cancels=cancels)
        if hive.open and chance.random() < 0.3:
            end_one(chance, hive, timers=0.02)
        elif not hive.read_one():
            if not hive.open and not words and not paused(hive):
                return hive
            words = 0
            if hive.open:
                end_one(chance, hive, timers=0.1)
            else:
                hive.given(WorkflowResumeRequested(), settle=False)
    raise AssertionError(f"no end in sight: {hive.story()[-20:]}")


def paused(hive: Hive) -> bool:
    """Whether the last word about pausing was to pause."""
    words = [topic for topic in hive.topics if topic in ("workflow.pause_requested", "workflow.resume_requested")]
    return words[-1:] == ["workflow.pause_requested"] and hive.topics[-1] not in ENDS


def end_one(chance: Random, hive: Hive, *, timers: float) -> None:
    """One open intent ends: as it would, or by its own words where somebody asked for that; timers seldom first."""
    others = [intent for intent in hive.open.values() if not isinstance(intent.event, TimerSet)]
    if chance.random() < timers:
        others = list(hive.open.values())
    if not others and hive.read_one():
        return
    intent = chance.choice(others or list(hive.open.values()))
    if intent.event_id in hive.cancel_asked and chance.random() < 0.7:
        hive.cancelled(intent, settle=False)
    else:
        assert isinstance(intent.event, Intent)
        hive.when(some_end(chance, intent.event), ends=intent, settle=False)


@dataclass
class Ledger:
    """What has been seen of the tasks of a run."""

    before: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    trying: dict[str, bool] = field(default_factory=dict)
    tried: dict[str, bool] = field(default_factory=dict)

    def reopen(self, task: str) -> None:
        """A person's retry: what was passed over because of the task waits anew."""
        self.ended.pop(task, None)
        reached = {task}
        for _ in self.before:
            reached |= {name for name, before in self.before.items() if reached & set(before)}
        for name in reached:
            if self.ended.get(name) in ("task.skipped", "task.cancelled"):
                del self.ended[name]
                self.tried.pop(name, None)

    def see(self, record: Record) -> None:
        """Check one event of a task."""
        event: Any = record.event
        task = getattr(event, "task_id", "")
        match record.topic:
            case "task.created":
                self.before[task] = (*event.needs, *(event.model_extra or {}).get("after", ()))
            case "task.ready":
                ready = task in self.tried or all(need in self.ended for need in self.before[task])
                assert ready, f"{task} before its needs"
                assert not self.trying.get(task), f"two tries of {task}"
                self.trying[task] = self.tried[task] = True
            case "task.returned" | "drone.completed" | "drone.failed" | "drone.interrupted":
                self.trying[task] = False
            case "task.retried":
                if task in self.ended:
                    self.reopen(task)
            case topic if topic in TASK_ENDS:
                assert task not in self.ended, f"{task} ended twice"
                self.ended[task] = topic
            case _:
                pass


def check_log(log: list[Record]) -> None:
    """No task before its needs, one open try per task, nothing new in a cancelled run."""
    ledger = Ledger()
    cancelled_at: int | None = None
    for record in log:
        ledger.see(record)
        if record.topic == "workflow.cancel_requested" and cancelled_at is None:
            cancelled_at = record.position
        elif record.topic == "workflow.resumed":
            cancelled_at = None
        elif cancelled_at is not None and record.topic in ("task.ready", "drone.hatched", "task.review_requested"):
            assert record.cause_position is not None
            assert record.cause_position < cancelled_at, f"{record.topic} in a cancelled run"


def check_conversations(log: list[Record]) -> None:
    """Every tool use of a reply is answered in the next request, in the same order."""
    open_uses: dict[str, list[str]] = {}
    for record in log:
        event: Any = record.event
        if record.topic == "model.responded":
            blocks = event.message["content"]
            open_uses[record.stream] = [block["id"] for block in blocks if block["type"] == "tool_use"]
        elif record.topic == "model.requested" and event.role == "drone":
            content = event.messages[0]["content"]
            blocks = content if isinstance(content, list) else []
            answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            assert answered == open_uses.pop(record.stream, [])


@settings(max_examples=int(os.environ.get("HIVE_RANDOM_RUNS", "80")))
@given(st.randoms(use_true_random=False))
def test_every_run_ends_whatever_happens(chance: Random) -> None:
    """Every intent ends once, every run ends, and the log alone gives the same states."""
    hive = a_random_run(chance)
    assert not hive.open
    words = [topic for topic in hive.topics if topic in (*ENDS, "workflow.resumed", "task.ready")]
    assert words[-1] in ENDS, hive.story()
    causes = Counter(record.causation_id for record in hive.log if record.event_id in _ends(hive))
    assert all(count == 1 for count in causes.values())
    check_log(hive.log)
    check_conversations(hive.log)
    rebuilt = hive.refolded()
    # By their representation: equality would not see another order of a table.
    assert {key: repr(state) for key, state in hive.states.items()} == {key: repr(rebuilt[key]) for key in hive.states}


def _ends(hive: Hive) -> set[str]:
    return {record.event_id for record in hive.ended.values()}


def test_a_thousand_steps_in_sequence_are_cheap_to_decide_and_to_fold() -> None:
    """Neither grows with the length of the run beyond what a copied table costs."""
    steps = [{"id": f"s{n}", "tool": "noop", "needs": [f"s{n - 1}"] if n else []} for n in range(1000)]
    began = time.process_time()
    hive = Hive(Queen(), Planner()).given(asked(*steps))
    for number in range(1000):
        hive.when(TaskReturned(task_id=f"s{number}"))
    assert hive.topics[-1] == "workflow.completed"
    decided = time.process_time() - began
    assert hive.refolded() == hive.states
    assert decided < 12.0


def test_a_thousand_steps_at_once_are_cheap_too() -> None:
    """Places are found by an ordered line, not by looking at every task."""
    steps = [{"id": f"s{n}", "tool": "noop"} for n in range(1000)]
    began = time.process_time()
    hive = Hive(Queen(), Planner()).given(asked(*steps, {"id": "end", "tool": "noop", "needs": ["s0", "s999"]}))
    while hive.open:
        task = next(iter(hive.open.values()))
        hive.when(TaskReturned(task_id=task.event.task_id), ends=task)  # type: ignore[attr-defined]
    assert hive.topics[-1] == "workflow.completed"
    assert time.process_time() - began < 16.0


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_decisions_do_not_depend_on_the_order_of_hashes(seed: str) -> None:
    """The same run under another hash seed writes the same log."""
    code = (
        "from random import Random; from hashlib import sha256\n"
        "from tests.scenario.test_random_runs import a_random_run\n"
        "logs = [tuple(r) for n in range(8) for r in a_random_run(Random(n)).log]\n"
        "print(sha256(repr(logs).encode()).hexdigest())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value in ("1", seed)
    ]
    assert found[0] == found[1]
