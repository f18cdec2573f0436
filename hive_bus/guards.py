"""Guarded topics: results and a run's states are never published into a live run, only appended by their owners.

A correlation id is a run's when the stream ``<id>/run`` has events. Under any other
correlation id these topics are ordinary events: recorded, traced, moving nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hive_bus.effects import Intent
from hive_bus.event import event_class, registered_topics, topics_known
from hive_core_db.records import NewEvent
from hive_errors import GuardedTopic

_LIFECYCLE: Final = ("started", "attempt_failed", "superseded", "failed", "cancelled")
_OWNED: Final[dict[str, tuple[str, str]]] = {
    "workflow": (
        "started plan_requested plan_rejected plan_generated paused resumed completed failed cancelled",
        "the queen or the planner",
    ),
    "task": (
        (
            "created ready completed failed retried skipped cancelled cancel_requested review_requested assigned "
            "returned attempt_failed superseded review_completed"
        ),
        "the queen, the reviewer or the work queue",
    ),
    "drone": ("message completed failed interrupted retired resumed", "the drone or the queen"),
    "model": (
        "requested cancel_requested started attempt_failed superseded cancelled failed responded",
        "the work queue",
    ),
    "tool": (
        "requested cancel_requested started attempt_failed superseded cancelled failed returned",
        "the work queue",
    ),
    "timer": ("set cancel_requested fired cancelled", "a brain or the clock"),
    "approval": (
        "requested cancel_requested cancelled granted denied expired",
        "a brain, the clock or a person's command",
    ),
    "agent": ("registered online offline busy draining", "the agent's process"),
    "budget": ("set reserved settled exceeded cleared", "the hand that makes the call, or a person's command"),
    "system": (
        "epoch_started parked unparked discarded archived redacted alert_raised alert_cleared view_switched",
        "the hive",
    ),
}
_INSTEAD: Final[dict[str, str]] = {
    "workflow.cancelled": "`hive cancel {run}`",
    "workflow.failed": "`hive cancel {run}`",
    "workflow.started": "`hive run FILE` or `hive run GOAL`",
    "workflow.paused": "workflow.pause_requested",
    "workflow.resumed": "workflow.resume_requested",
    "task.retried": "`hive retry {run}`",
    "task.ready": "`hive retry {run}`",
    "task.cancelled": "`hive cancel {run}`",
    "task.cancel_requested": "`hive cancel {run}`",
    "task.returned": "an agent that takes the task: @agent.task(capability=...), `hive agent MODULE:NAME`",
    "task.completed": "an agent that takes the task: @agent.task(capability=...), `hive agent MODULE:NAME`",
    "drone.interrupted": "drone.interrupt_requested",
    "approval.granted": "`hive approve {run}`",
    "approval.denied": "`hive deny {run}`",
    "approval.expired": "`hive deny {run}`",
    "budget.set": "`hive budget {run} --set`",
    "system.parked": "`hive parked`",
    "system.view_switched": "`hive views rebuild`",
    "system.unparked": "`hive parked`",
    "system.discarded": "`hive parked`",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Who alone appends a topic within a run, and what people use instead (``{run}`` stands for the run)."""

    owner: str
    instead: str


_BUILT_IN: Final[dict[str, Guard]] = {
    f"{family}.{word}": Guard(
        owner, _INSTEAD.get(f"{family}.{word}", f"another correlation id, or another topic than {family}.{word}")
    )
    for family, (words, owner) in _OWNED.items()
    for word in words.split()
}
_users: dict[str, Guard] = {}
_users_known = -1


def guard_of(topic: str) -> Guard | None:
    """The guard of a topic, None where anybody may publish it anywhere."""
    guard = _BUILT_IN.get(topic)
    return guard if guard is not None else _guards_of_users().get(topic)


def _guards_of_users() -> dict[str, Guard]:
    """What ends or accompanies an intent that a user defined; worked out again when classes were added."""
    global _users, _users_known
    known = topics_known()
    if known == _users_known:
        return _users
    guards: dict[str, Guard] = {}
    for topic in registered_topics():
        intent = event_class(topic)
        if intent is None or not issubclass(intent, Intent) or topic in _BUILT_IN:
            continue
        family = intent.family()
        guard = Guard("the work queue", f"a hand for {topic}: @agent.hand({intent.__name__})")
        guards.update(dict.fromkeys((*intent.ends(), *(f"{family}.{word}" for word in _LIFECYCLE)), guard))
    _users, _users_known = guards, known
    return guards


def no_run(new: NewEvent) -> dict[str, int]:
    """What must be empty for a guarded event: the run of its correlation id, and the run whose stream it goes to."""
    return {f"{new.correlation_id}/run": 0, f"{new.stream.partition('/')[0]}/run": 0}


def guarded(new: NewEvent, guard: Guard, stream: str) -> GuardedTopic:
    """The error for an event whose run, by its stream, is alive."""
    run = stream.removesuffix("/run")
    return GuardedTopic(topic=new.topic, run=run, owner=guard.owner, instead=guard.instead.format(run=run))
