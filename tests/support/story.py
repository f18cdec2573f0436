"""A run told by hand, for tests of views: records with the times and causes that a test wants."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from hive_bus import Record
from hive_core_db.records import StoredEvent

RUN = "7k3m9x2p4q"
SECOND = 1_000_000


class Story:
    """Records of one run, in order; ``at`` is seconds since its request, ``cause`` a record that was told before."""

    def __init__(self, run: str = RUN) -> None:
        self.run = run
        self.records: list[Record] = []

    def tell(self, topic: str, at: float, *, cause: Record | None = None, stream: str = "run", **data: Any) -> Record:
        """Add a record and return it; without a cause it is the one before."""
        position = len(self.records) + 1
        if cause is None and self.records:
            cause = self.records[-1]
        payload = json.dumps(data)
        row = StoredEvent(
            position=position,
            event_id=f"event-{position}",
            stream=f"{self.run}/{stream}",
            version=position,
            topic=topic,
            correlation_id=self.run,
            causation_id=cause.event_id if cause is not None else None,
            cause_position=cause.position if cause is not None else None,
            decided_by=None,
            source="test",
            schema_version=1,
            payload=payload,
            metadata=None,
            digest=sha256(payload.encode()).hexdigest(),
            append_first=position,
            occurred_at=round(at * SECOND),
            recorded_at=round(at * SECOND),
        )
        self.records.append(Record._make(row))
        return self.records[-1]


def two_steps() -> Story:
    """``build`` (waits 1 s, works 2 s), beside it the quick ``lint``, then ``ship``, which asks a person for 4 s."""
    story = Story()
    asked = story.tell("workflow.requested", 0, name="ci", goal="", workspace={"path": "/src"})
    story.tell("workflow.started", 0, cause=asked)
    plan = story.tell("workflow.plan_requested", 0, cause=asked, attempt=1)
    planned = story.tell("workflow.plan_generated", 0, cause=plan, attempt=1, tasks=[{}, {}, {}])
    story.tell("task.created", 0, cause=planned, task_id="build", name="build", spec={"run": "make"})
    story.tell("task.created", 0, cause=planned, task_id="lint", name="Look at style", spec={"run": "ruff"})
    story.tell("task.created", 0, cause=planned, task_id="ship", name="ship", needs=["build"], spec={"run": "./ship"})
    build = story.tell("task.ready", 0, cause=planned, task_id="build", kind="run", command="make", try_number=1)
    lint = story.tell("task.ready", 0, cause=planned, task_id="lint", kind="run", command="ruff", try_number=1)
    story.tell("task.assigned", 0.5, cause=lint, task_id="lint", try_number=1)
    linted = story.tell("task.returned", 0.8, cause=lint, task_id="lint", try_number=1, output="fine")
    story.tell("task.completed", 0.8, cause=linted, task_id="lint", output="fine")
    story.tell("task.assigned", 1, cause=build, task_id="build", try_number=1)
    built = story.tell("task.returned", 3, cause=build, task_id="build", try_number=1, output="built", exit_code=0)
    story.tell("task.completed", 3, cause=built, task_id="build", output="built", exit_code=0)
    question = story.tell("approval.requested", 3, cause=built, approval_id="a1", task_id="ship", question="Ship it?")
    granted = story.tell("approval.granted", 7, cause=question, approval_id="a1", task_id="ship", by="ana")
    ship = story.tell("task.ready", 7, cause=granted, task_id="ship", kind="run", command="./ship", try_number=1)
    story.tell("task.assigned", 7, cause=ship, task_id="ship", try_number=1)
    shipped = story.tell("task.returned", 8, cause=ship, task_id="ship", try_number=1, output="shipped")
    story.tell("task.completed", 8, cause=shipped, task_id="ship", output="shipped")
    story.tell("workflow.completed", 8, cause=shipped, output="shipped")
    return story


def a_drone() -> Story:
    """A drone's task: a model call, a tool that fails, a second call; refused once, tried again and approved."""
    story = Story()
    asked = story.tell("workflow.requested", 0, goal="Mend it", workspace={"path": "/src", "base": "c0"})
    plan = story.tell("workflow.plan_requested", 0, cause=asked, attempt=1)
    call = story.tell("model.requested", 0, cause=plan, conversation="planner", role="planner", turn=1)
    story.tell("model.started", 0.1, cause=call, attempt=1, by="hive")
    answer = story.tell("model.responded", 1, cause=call, input_tokens=100, output_tokens=20, cost="0.5")
    planned = story.tell("workflow.plan_generated", 1, cause=answer, attempt=1, tasks=[{}])
    story.tell("task.created", 1, cause=planned, task_id="fix", name="Mend", spec={"prompt": "Mend it"})
    end = planned
    for number, verdict in ((1, "changes_requested"), (2, "approved")):
        end = _try(story, number, verdict, at=number * 10, cause=end)
    merge = story.tell("tool.requested", 30, cause=end, tool="workspace.integrate", task_id="fix", input={})
    story.tell("tool.started", 30, cause=merge, attempt=1, by="hive")
    merged = story.tell("tool.returned", 31, cause=merge, tool="workspace.integrate", task_id="fix", output="c9")
    story.tell("task.completed", 31, cause=merged, task_id="fix", output="done")
    story.tell("workflow.completed", 31, cause=merged, commit="c9", merge_command="git merge hive/x", branch="hive/x")
    return story


def _try(story: Story, number: int, verdict: str, *, at: float, cause: Record) -> Record:
    home = f"drone/fix.{number}"
    if number > 1:
        story.tell("task.retried", at, cause=cause, task_id="fix", try_number=number, reason="changes", comments=["no"])
    ready = story.tell("task.ready", at, cause=cause, task_id="fix", kind="prompt", try_number=number)
    story.tell("task.assigned", at, cause=ready, task_id="fix", try_number=number, assignee=f"fix.{number}")
    story.tell("drone.hatched", at, cause=ready, stream=home, drone_id=f"fix.{number}", task_id="fix")
    buzzed = story.tell("drone.buzzed", at, cause=ready, stream=home, drone_id=f"fix.{number}")
    call = story.tell("model.requested", at, cause=buzzed, stream=home, role="drone", turn=1, task_id="fix")
    story.tell("model.started", at + 0.5, cause=call, stream=home, attempt=1, by="hive")
    failed = story.tell("model.attempt_failed", at + 1, cause=call, stream=home, attempt=1, reason="overloaded")
    story.tell("model.started", at + 2, cause=call, stream=home, attempt=2, by="hive")
    said = story.tell("model.responded", at + 3, cause=call, stream=home, input_tokens=10, output_tokens=5)
    used = story.tell(
        "tool.requested", at + 3, cause=said, stream=home, tool="command", task_id="fix", input={"command": "./check"}
    )
    story.tell("tool.started", at + 3, cause=used, stream=home, attempt=1, by="hive")
    answer = {"tool": "command", "task_id": "fix", "is_error": True, "exit_code": 1, "output": "[stderr]"}
    returned = story.tell("tool.returned", at + 4, cause=used, stream=home, **answer)
    done = story.tell("drone.completed", at + 4, cause=returned, stream=home, drone_id=f"fix.{number}", output="mended")
    review = story.tell("task.review_requested", at + 4, cause=done, task_id="fix", try_number=number, round=number)
    call = story.tell("model.requested", at + 4, cause=review, role="reviewer", turn=1, task_id="fix")
    story.tell("model.started", at + 4, cause=call, attempt=1, by="hive")
    verdict_given = story.tell("model.responded", at + 5, cause=call, input_tokens=7, output_tokens=3, cost="0.25")
    assert failed
    return story.tell(
        "task.review_completed", at + 5, cause=verdict_given, task_id="fix", verdict=verdict, comments=["look again"]
    )
