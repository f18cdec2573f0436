"""Factories: the words people use make drafts of built-in events; what is missing or misspelt is named."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from hive_bus import (
    AgentEventType,
    Draft,
    SystemEventType,
    TaskEventType,
    WorkflowEventType,
    create_agent_event,
    create_system_event,
    create_task_event,
    create_workflow_event,
    events,
)
from hive_bus.codec import encode
from hive_bus.event import Event
from hive_errors import FieldMissing, UnregisteredTopic

FAMILIES: list[tuple[str, type[StrEnum], Callable[..., Draft], dict[str, Any]]] = [
    ("task", TaskEventType, create_task_event, {"task_id": "t1"}),
    ("workflow", WorkflowEventType, create_workflow_event, {"workflow_id": "w1"}),
    ("agent", AgentEventType, create_agent_event, {}),
    ("system", SystemEventType, create_system_event, {}),
]
EVERY = [(kind, create, fields) for _, kinds, create, fields in FAMILIES for kind in kinds]


@pytest.mark.parametrize(("family", "kinds"), [row[:2] for row in FAMILIES])
def test_a_family_has_a_member_for_every_topic(family: str, kinds: type[StrEnum]) -> None:
    """The name is the topic's last part in capitals."""
    built_in = {cls.TOPIC for name in events.__all__ if issubclass(cls := getattr(events, name), Event)}
    assert {kind.value for kind in kinds} == {topic for topic in built_in if topic.startswith(f"{family}.")}
    assert all(kind.name == kind.value.partition(".")[2].upper() for kind in kinds)


@pytest.mark.parametrize(
    ("kind", "create", "fields"), EVERY, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_only_the_evident_field_is_required(
    kind: StrEnum, create: Callable[..., Draft], fields: dict[str, Any]
) -> None:
    """Every type is drafted from it alone, and other fields are kept."""
    draft = create(event_type=kind, source_agent="ada", **fields, remark="kept")
    assert kind.value == draft.event.TOPIC
    assert draft.event.model_dump()["remark"] == "kept"
    assert encode(draft.event)


def test_the_envelope_is_wished_for() -> None:
    """Source, correlation and causation are what was said."""
    draft = create_task_event(
        event_type=TaskEventType.ASSIGNED,
        source_agent="queen",
        correlation_id="c1",
        causation_id="e1",
        task_id="t1",
        assignee="drone-7",
    )
    assert draft == Draft(
        event=events.TaskAssigned(task_id="t1", assignee="drone-7"),
        source="queen",
        correlation_id="c1",
        causation_id="e1",
    )


@pytest.mark.parametrize("event_type", [TaskEventType.REVIEW_COMPLETED, "task.review_completed", "review_completed"])
def test_a_type_may_be_written_three_ways(event_type: str) -> None:
    """The member, its topic, or the topic's last part."""
    draft = create_task_event(event_type=event_type, source_agent="r", task_id="t", verdict="rejected")
    assert isinstance(draft.event, events.TaskReviewCompleted)
    assert draft.event.verdict == "rejected"


def test_an_agent_event_is_about_its_source() -> None:
    """Unless a name is given."""
    own = create_agent_event(event_type=AgentEventType.ONLINE, source_agent="ada").event
    other = create_agent_event(event_type=AgentEventType.ONLINE, source_agent="ada", name="bob").event
    assert isinstance(own, events.AgentOnline)
    assert isinstance(other, events.AgentOnline)
    assert (own.name, other.name) == ("ada", "bob")


@pytest.mark.parametrize(
    ("create", "wishes", "field"),
    [
        (create_task_event, {"event_type": "assigned", "source_agent": "a"}, "task_id"),
        (create_task_event, {"event_type": "assigned", "source_agent": "a", "task_id": 7}, "task_id"),
        (create_task_event, {"event_type": "assigned", "source_agent": "a", "task_id": ""}, "task_id"),
        (create_workflow_event, {"event_type": "started", "source_agent": "a"}, "workflow_id"),
        (create_workflow_event, {"event_type": "started", "source_agent": "a", "workflow_id": ["w"]}, "workflow_id"),
        (create_system_event, {"event_type": "parked", "source_agent": ""}, "source_agent"),
        (create_agent_event, {"event_type": "busy", "source_agent": None}, "source_agent"),
        (create_task_event, {"event_type": "assigned", "source_agent": "a", "task_id": "t", "attempt": "x"}, "attempt"),
        (
            create_task_event,
            {"event_type": "assigned", "source_agent": "a", "task_id": "t", "correlation_id": 5},
            "correlation_id",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(create: Callable[..., Draft], wishes: dict[str, Any], field: str) -> None:
    """The error has the topic, the field, its value and the reason."""
    with pytest.raises(FieldMissing) as problem:
        create(**wishes)
    assert problem.value.field == field
    assert problem.value.reason


@pytest.mark.parametrize(
    ("event_type", "suggestion"),
    [
        ("asigned", "task.assigned"),
        ("task.completd", "task.completed"),
        ("workflow.started", "family 'task'"),
        ("zzz", "known are"),
    ],
)
def test_an_unknown_type_gets_a_suggestion(event_type: str, suggestion: str) -> None:
    """A near miss is corrected, another family refused, and nonsense answered with the list."""
    with pytest.raises(UnregisteredTopic, match=suggestion):
        create_task_event(event_type=event_type, source_agent="a", task_id="t")


def test_a_users_event_in_the_family_is_drafted_too() -> None:
    """A class that claims a topic of the family is as good as a built-in one."""

    class Rated(Event, topic="task.rated"):
        task_id: str
        stars: int

    draft = create_task_event(event_type="rated", source_agent="a", task_id="t", stars=5)
    assert draft.event == Rated(task_id="t", stars=5)
