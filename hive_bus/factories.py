"""Factories for the words people already use: ``create_task_event(event_type=TaskEventType.ASSIGNED, ...)``.

They return drafts of built-in events (and of users' events in the same families).
Such events are recorded and traced; they do not move a run. Each family asks only for
its evident field; fields beyond those of the event are kept.
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import ValidationError

import hive_bus.events as _events  # noqa: F401 - its import registers the classes that the enumerations name
from hive_bus.event import Draft, event_class, registered_topics
from hive_errors import FieldMissing, UnregisteredTopic

__all__ = [
    "AgentEventType",
    "SystemEventType",
    "TaskEventType",
    "WorkflowEventType",
    "create_agent_event",
    "create_system_event",
    "create_task_event",
    "create_workflow_event",
]


class TaskEventType(StrEnum):
    """The topics of a task's life."""

    ASSIGNED = "task.assigned"
    ATTEMPT_FAILED = "task.attempt_failed"
    CANCEL_REQUESTED = "task.cancel_requested"
    CANCELLED = "task.cancelled"
    COMPLETED = "task.completed"
    CREATED = "task.created"
    FAILED = "task.failed"
    READY = "task.ready"
    RETRIED = "task.retried"
    RETRY_REQUESTED = "task.retry_requested"
    RETURNED = "task.returned"
    REVIEW_COMPLETED = "task.review_completed"
    REVIEW_REQUESTED = "task.review_requested"
    SKIPPED = "task.skipped"
    SUPERSEDED = "task.superseded"


class WorkflowEventType(StrEnum):
    """The topics of a run's life."""

    CANCEL_REQUESTED = "workflow.cancel_requested"
    CANCELLED = "workflow.cancelled"
    COMPLETED = "workflow.completed"
    FAILED = "workflow.failed"
    FORKED = "workflow.forked"
    LABELLED = "workflow.labelled"
    PAUSE_REQUESTED = "workflow.pause_requested"
    PAUSED = "workflow.paused"
    PLAN_GENERATED = "workflow.plan_generated"
    PLAN_REJECTED = "workflow.plan_rejected"
    PLAN_REQUESTED = "workflow.plan_requested"
    REQUESTED = "workflow.requested"
    RESUME_REQUESTED = "workflow.resume_requested"
    RESUMED = "workflow.resumed"
    STARTED = "workflow.started"


class AgentEventType(StrEnum):
    """The topics of agents that come and go."""

    BUSY = "agent.busy"
    DRAINING = "agent.draining"
    OFFLINE = "agent.offline"
    ONLINE = "agent.online"
    REGISTERED = "agent.registered"


class SystemEventType(StrEnum):
    """The topics of what the hive says about itself."""

    ALERT_CLEARED = "system.alert_cleared"
    ALERT_RAISED = "system.alert_raised"
    ARCHIVED = "system.archived"
    DISCARDED = "system.discarded"
    EPOCH_STARTED = "system.epoch_started"
    PARKED = "system.parked"
    REDACTED = "system.redacted"
    UNPARKED = "system.unparked"
    VIEW_SWITCHED = "system.view_switched"


def create_task_event(
    *,
    event_type: TaskEventType | str,
    source_agent: str,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    **fields: Any,
) -> Draft:
    """Draft an event about a task; ``task_id`` is required.

    ``event_type`` is a member, its topic (``task.assigned``) or the topic's last part
    (``assigned``). Raises :class:`FieldMissing` and :class:`UnregisteredTopic`.
    """
    wishes = _Wishes(source_agent, correlation_id, causation_id)
    return _draft("task", event_type, wishes, fields, evident="task_id")


def create_workflow_event(
    *,
    event_type: WorkflowEventType | str,
    source_agent: str,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    **fields: Any,
) -> Draft:
    """Draft an event about a workflow; ``workflow_id`` is required. Else as ``create_task_event``."""
    wishes = _Wishes(source_agent, correlation_id, causation_id)
    return _draft("workflow", event_type, wishes, fields, evident="workflow_id")


def create_agent_event(
    *,
    event_type: AgentEventType | str,
    source_agent: str,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    **fields: Any,
) -> Draft:
    """Draft an event about an agent, which is the ``source_agent`` unless ``name`` says another."""
    wishes = _Wishes(source_agent, correlation_id, causation_id)
    return _draft("agent", event_type, wishes, {"name": source_agent} | fields)


def create_system_event(
    *,
    event_type: SystemEventType | str,
    source_agent: str,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    **fields: Any,
) -> Draft:
    """Draft an event about the hive itself. Arguments and errors as ``create_task_event``, without a required field."""
    return _draft("system", event_type, _Wishes(source_agent, correlation_id, causation_id), fields)


class _Wishes(NamedTuple):
    """What a factory was told for the envelope; nobody has checked it yet."""

    source_agent: str
    correlation_id: str | None
    causation_id: str | None


def _draft(family: str, event_type: str, wishes: _Wishes, fields: dict[str, Any], *, evident: str = "") -> Draft:
    topic = _topic(family, event_type)
    cls = event_class(topic)
    if cls is None:
        raise UnregisteredTopic(topic=topic, suggestion=_suggestion(family, topic))
    _require(topic, "source_agent", wishes.source_agent)
    if evident:
        _require(topic, evident, fields.get(evident))
    for name in ("correlation_id", "causation_id"):
        if getattr(wishes, name) is not None:
            _require(topic, name, getattr(wishes, name))
    try:
        event = cls(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        path = ".".join(map(str, first["loc"])) or "(body)"
        value = "(missing)" if first["type"] == "missing" else ascii(first["input"])[:80]
        raise FieldMissing(topic=topic, field=path, value=value, reason=first["msg"]) from problem
    return Draft(
        event=event,
        source=wishes.source_agent,
        correlation_id=wishes.correlation_id,
        causation_id=wishes.causation_id,
    )


def _topic(family: str, event_type: str) -> str:
    topic = str(event_type)
    topic = topic if "." in topic else f"{family}.{topic}"
    if not topic.startswith(f"{family}."):
        raise UnregisteredTopic(topic=topic, suggestion=f" in the family {family!r}{_suggestion(family, topic)}")
    return topic


def _suggestion(family: str, topic: str) -> str:
    known = [name for name in registered_topics() if name.startswith(f"{family}.")]
    wanted = f"{family}.{topic.rpartition('.')[2]}".lower()
    close = get_close_matches(wanted, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _require(topic: str, name: str, value: object) -> None:
    if value is None:
        raise FieldMissing(topic=topic, field=name, value="(missing)", reason="Field required")
    if not isinstance(value, str) or not value:
        raise FieldMissing(topic=topic, field=name, value=ascii(value)[:80], reason="it must be text that is not empty")
