"""What must hold of every run's log in the end, whatever happened to the hosts."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.colony import brains
from dashboard.cli import vocabulary
from hive_bus.bus import Bus
from hive_bus.effects import Intent, lifecycle_class
from hive_bus.event import event_class
from hive_bus.events import ModelRequested, TaskReady
from hive_bus.record import Record
from hive_bus.replay.redrive import keys_of_run, redrive
from hive_core_db.audit import Vocabulary, audit
from tests.scenario.test_random_runs import ENDS, check_conversations, check_log

BEGINNINGS = frozenset(
    {"task.ready", "task.assigned", "task.review_requested", "drone.hatched", "workflow.plan_requested"}
    | {"model.requested", "model.started", "tool.requested", "tool.started", "timer.set", "approval.requested"}
)
NEW_TASKS = frozenset({"task.ready", "drone.hatched", "task.review_requested"})


async def broken_rules(bus: Bus, run: str) -> list[str]:
    """Rules that the run's history breaks, and decisions that today's brains would not make again."""
    log = await bus.history(run)
    found = [f"{run}: {said}" for said in (*_order(as_lived(log)), *_cancelled(log))]
    head = await bus.head()
    for brain in brains():
        for key in await keys_of_run(bus.store.log, brain, run):
            found += [str(one) async for one in redrive(bus.store.log, brain, key, upto=head)]
    return found


def as_lived(log: Sequence[Record]) -> list[Record]:
    """A branch's history as if it were one run's: in streams of one name, and what was asked again as it was asked last."""
    asked: dict[tuple[object, ...], Record] = {}
    for record in log:
        if (key := _asked(record)) is not None:
            asked[key] = record
    kept = [record for record in log if asked.get(_asked(record) or (), record) is record]
    return [record._replace(stream=record.stream.removeprefix(f"{record.correlation_id}/")) for record in kept]


def _asked(record: Record) -> tuple[object, ...] | None:
    """What an event asks for that is asked for once in a run."""
    within = record.stream.removeprefix(f"{record.correlation_id}/")
    match record.event:
        case ModelRequested() as event:
            return within, event.conversation, event.turn
        case TaskReady() as event:
            return event.task_id, event.try_number
        case _:
            return None


def _order(log: list[Record]) -> Iterator[str]:
    """Needs first, one open try per task, every tool use answered: the rules of the scenarios, on this log."""
    for check in (check_log, check_conversations):
        try:
            check(log)
        except AssertionError as broken:
            yield f"{check.__name__}: {broken}"


def _cancelled(log: Sequence[Record]) -> Iterator[str]:
    """Nothing new is decided behind a cancellation that the queen has seen, nothing at all begins behind its end."""
    asked_at: int | None = None
    end = ""
    for record in log:
        if record.topic in ENDS:
            if end:
                yield f"{record.topic} at {record.position} behind {end}"
            end, asked_at = record.topic, None
        elif record.topic == "workflow.resumed" and end:
            end = ""
        elif record.topic == "workflow.cancel_requested" and not end:
            asked_at = asked_at or record.position
        elif end and record.topic in BEGINNINGS:
            yield f"{record.topic} at {record.position} behind {end}"
        elif asked_at is not None and record.topic in NEW_TASKS and (record.cause_position or 0) > asked_at:
            yield f"{record.topic} at {record.position} behind the cancellation at {asked_at}"


def unsound_runs(path: Path) -> list[str]:
    """What the auditor says, and every intent that has not exactly one end, but for open questions."""
    words = Vocabulary(**vocabulary.words(), queued=vocabulary.queued)
    found = [str(finding) for finding in audit(str(path), vocabulary=words)]
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT event_id, topic, causation_id, payload FROM events ORDER BY position").fetchall()
        work = db.execute("SELECT work_id, topic, state FROM work").fetchall()
    waiting = {work_id for work_id, topic, _ in work if topic == "approval.requested"}
    found += [f"open work item {row}" for row in work if row[0] not in waiting]
    intents: dict[str, type[Intent]] = {}
    ends: dict[str, list[str]] = {}
    for event_id, topic, cause, payload in rows:
        cls = event_class(topic) or lifecycle_class(topic)
        if cause in intents and topic in intents[cause].ends():
            ends[cause].append(topic)
        if cls is not None and issubclass(cls, Intent) and vocabulary.queued(topic, payload):
            intents[event_id], ends[event_id] = cls, []
    return found + [
        f"{intents[key].TOPIC} {key} ended {topics}"
        for key, topics in ends.items()
        if len(topics) != (key not in waiting)
    ]
