"""The envelope: the one place that makes a row of the log from a body, and work from an intent.

It knows no log and no loop: everything here is a function of its arguments. Here is
also what a handler has published so far (``Collector``), found through ``current_handler``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from hive_bus.codec import digest, encode, encode_metadata, not_an_event
from hive_bus.effects import CancelRequested, Intent
from hive_bus.event import Draft, Event
from hive_bus.ids import derived_event_id
from hive_bus.record import Record
from hive_core_db.records import NewEvent, WorkCancel, WorkChange, WorkInsert
from hive_errors import BusClosed, InvalidTopic

_MICROSECONDS: Final = 1_000_000
_BUILT_IN: Final = "hive_bus.events."
_WORK: Final = (Intent, CancelRequested)


def encode_event(
    item: Event | Draft,
    *,
    stream: str,
    correlation_id: str,
    event_id: str,
    source: str,
    causation_id: str | None = None,
    cause_position: int | None = None,
    decided_by: str | None = None,
    occurred_at: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> NewEvent:
    """The row of ``item``; the arguments win over a draft's wishes, which the caller has read.

    Raises :class:`PayloadRefused`, :class:`MetadataTooLarge`, or :class:`InvalidTopic` for a class without a topic.
    """
    event = item.event if isinstance(item, Draft) else item
    try:
        topic = event.TOPIC
    except AttributeError:
        raise not_an_event(event) from None
    if isinstance(event, type):
        raise not_an_event(event)
    if not topic:
        raise InvalidTopic(topic="", reason=f"{type(event).__name__} has none: class X(Event, topic='family.word')")
    payload = encode(event)
    return NewEvent(
        event_id,
        stream,
        topic,
        correlation_id,
        causation_id,
        cause_position,
        decided_by,
        source,
        event.VERSION,
        payload.decode(),
        encode_metadata(topic, metadata) if metadata else None,
        digest(payload),
        occurred_at,
        fresh,
    )


def intent_work(intent: Event, index: int) -> WorkInsert | None:
    """The work that the event at ``index`` of a request asks for; None where nobody needs to act."""
    policy = intent.work() if isinstance(intent, Intent) else None
    if policy is None:
        return None
    if policy.waits_for == "person":
        state = "waiting"
    else:
        state = "delayed" if policy.waits_for == "time" or policy.delay > 0 else "ready"
    return WorkInsert(
        event_index=index,
        queue=policy.queue,
        state=state,
        priority=policy.priority,
        cost=policy.cost,
        delay=round(policy.delay * _MICROSECONDS),
        waiting_timeout=_microseconds(policy.waiting_timeout),
        running_timeout=_microseconds(policy.running_timeout),
        silent_timeout=_microseconds(policy.silent_timeout),
        total_timeout=_microseconds(policy.total_timeout),
        preferred=policy.preferred,
        hold_out=round(policy.hold_out * _MICROSECONDS),
    )


def work_changes(items: Sequence[Event | Draft], *, first: int = 0, built_in: bool = True) -> tuple[WorkChange, ...]:
    """What a request with these events does to the queue: intents are inserted, intents named by a cancel request end.

    ``first`` is the index of the first item in the request. ``built_in`` False leaves the
    built-in families alone: that is how people publish, who move no run by a mere event.
    """
    changes: list[WorkChange] = []
    for index, item in enumerate(items, first):
        event = item.event if isinstance(item, Draft) else item
        if not isinstance(event, _WORK) or not (built_in or is_users(type(event))):
            continue
        if isinstance(event, CancelRequested):
            if event.intent_id:
                changes.append(WorkCancel(work_id=event.intent_id))
            continue
        work = intent_work(event, index)
        if work is not None:
            changes.append(work)
    return tuple(changes)


def is_users(cls: type[Event]) -> bool:
    """Whether the class is a user's own, not of the published language."""
    return not cls.__module__.startswith(_BUILT_IN)


@dataclass(slots=True, kw_only=True)
class Collector:
    """What a handler has published so far: it goes into the one append that also moves the checkpoint.

    Whoever runs the handler sets it as ``current_handler``, and for each record ``record`` and
    ``current_record``; ``closed`` ends it. ``bus`` is whose append it
    is: what the handler publishes on another bus is appended there at once. ``expected`` are
    streams that must be empty for the guarded topics among the events (see ``guards.py``).
    """

    bus: object = None
    group: str = ""
    record: Record | None = None
    events: list[NewEvent] = field(default_factory=list)
    work: list[WorkChange] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    def next_id(self) -> str | None:
        """The id of the next event: the same again when its record is delivered again."""
        if self.record is None:
            return None
        return derived_event_id(self.record.occurred_at, self.group, self.record.event_id, len(self.events))

    def add(self, event: NewEvent, item: Event | Draft | None = None) -> None:
        """Add an event, and the work that ``item`` (its body) asks for. Raises :class:`BusClosed` once closed.

        Also when the publisher was started by the handling of an earlier record: its context remembers which.
        """
        record = current_record.get()
        if self.closed or (record is not None and record is not self.record):
            raise BusClosed(what=f"publish {event.topic}", reason="the handler that published it has returned")
        self.events.append(event)
        if item is not None:
            self.work.extend(work_changes((item,), first=len(self.events) - 1, built_in=False))

    def clear(self) -> None:
        """Forget what was published; what others hold of it is theirs."""
        self.events, self.work, self.expected = [], [], {}


current_handler: ContextVar[Collector | None] = ContextVar("hive_current_handler", default=None)
current_record: ContextVar[Record | None] = ContextVar("hive_current_record", default=None)


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _MICROSECONDS)
