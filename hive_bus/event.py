"""Events as users define them: a frozen body with a topic and a version; and drafts.

A body holds fields only, no id and no time: those are the envelope's, given when it
is published. What an event class is called does not matter to the log, its topic does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from hive_bus.topics import check_topic
from hive_errors import TopicTaken

_registry: dict[str, type[Event]] = {}


class Event(BaseModel):
    """A fact, past tense: ``class OrderPlaced(Event, topic="order.placed", version=1)``.

    ``TOPIC`` and ``VERSION`` are the class's arguments. A subclass without a topic is
    a base for others and cannot be published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    TOPIC: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1

    def __init_subclass__(cls, topic: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.TOPIC, cls.VERSION = topic, version
        if not topic:
            return
        check_topic(topic)
        owner = _registry.get(topic)
        if owner is not None and (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TopicTaken(topic=topic, owner=_name(owner), claimant=_name(cls))
        _registry[topic] = cls


class RawEvent(Event):
    """An event whose topic no class of this process claims: readable, traceable, not decodable further."""

    topic: str
    version: int
    data: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A body with wishes for its envelope; what is None is chosen by ``publish``.

    ``stream`` is a full stream name for ``publish``, and a name within the run
    (``drone/fix.1``) in what a brain decides. ``occurred_at`` is UTC microseconds.
    """

    event: Event
    stream: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    event_id: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] | None = None
    occurred_at: int | None = None


def event_class(topic: str) -> type[Event] | None:
    """The class that claims ``topic`` in this process."""
    return _registry.get(topic)


def topics_known() -> int:
    """How many topics have a class in this process: it grows with every one."""
    return len(_registry)


def registered_topics() -> list[str]:
    """Every topic that has a class in this process, sorted."""
    return sorted(_registry)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
