"""One key of one brain: how inputs and own decisions are folded, live and from the log.

The fold order is the same in both: an input sorts by its position, an own decision
directly behind its cause. What is folded is what was stored: a decision is encoded
and decoded before it is folded. This module does no I/O; ``past.py`` reads what is folded.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from hive_bus.brains.brain import Brain, Input, State
from hive_bus.codec import decode, decoder
from hive_bus.envelope import encode_event
from hive_bus.event import Draft, Event
from hive_bus.ids import derived_event_id
from hive_bus.lineage import run_of
from hive_bus.topics import matches
from hive_core_db.records import NewEvent, StoredEvent
from hive_errors import NewerVersion

SAME_APPEND = -1
"""``cause_position`` of a decision whose cause is event i of its own append: ``SAME_APPEND - i``."""


# Past the generated constructor, which costs three times as much: every folded event makes one.
_new_input: Callable[[type[Input], tuple[object, ...]], Input] = tuple.__new__


def fold_topic(brain: Brain[Any], topic: str) -> bool:
    """Whether the brain folds this topic."""
    return any(matches(pattern, topic) for pattern in brain.folds)


def key_of(brain: Brain[Any], event: StoredEvent) -> str | None:
    """The key under which the brain folds the event; None: not at all."""
    if brain.keyed_by == "correlation":
        return event.correlation_id
    return event.stream if within_run(event).startswith(brain.stream_prefix) else None


def run_of_key(brain: Brain[Any], key: str) -> str:
    """The correlation that a key of the brain belongs to."""
    return key if brain.keyed_by == "correlation" else run_of(key)


def within_run(event: StoredEvent) -> str:
    """The stream's name within its run (``drone/fix.1``); a stream outside any run is its own name."""
    return event.stream.removeprefix(event.correlation_id + "/")


def decider(brain: Brain[Any]) -> str:
    """Who decided: name, version and the digest of the modules its decisions depend on."""
    sources = [type(brain).__module__, *brain.modules]
    files = [importlib.import_module(name).__file__ for name in sources]
    digest = hashlib.sha256(b"\0".join(Path(file).read_bytes() for file in files if file)).hexdigest()[:12]
    return f"{brain.name}@{brain.version}:{digest}"


def decided_by(brain: Brain[Any], event: StoredEvent) -> bool:
    """Whether the event is one of this brain's own decisions, of whatever version."""
    decider = event.decided_by
    return decider is not None and decider.startswith(brain.name + "@")


@dataclass(frozen=True, slots=True)
class Decided:
    """What followed from one input: the events, encoded, and as they will be decoded again."""

    events: tuple[NewEvent, ...]
    bodies: tuple[Event, ...]


class Folder(Generic[State]):
    """Folds a brain: turns stored events into inputs, decisions into new events."""

    def __init__(self, brain: Brain[State]) -> None:
        self.brain = brain
        self.decider = decider(brain)
        self._evolve = brain.evolve
        self._decoders: dict[tuple[str, int], Callable[[str], Event]] = {}

    def fold(self, state: State, event: StoredEvent) -> State:
        """The state after a stored event."""
        return self._evolve(state, self.seen(event))

    def seen(self, record: StoredEvent) -> Input:
        """What the brain sees of a record."""
        # Unpacked at once: twice as fast as by name. This runs for every event of every history.
        (
            _, event_id, stream, _, topic, correlation, causation_id, _, _, source, version, payload, _, _, _, occurred_at, _,
        ) = record  # fmt: skip
        known = self._decoders.get((topic, version)) or self._decoder(topic, version)
        try:
            body = known(payload)
        except ValidationError:
            body = decode(topic, version, payload)  # which says it in the bus's words
        within = stream.removeprefix(correlation + "/")
        return _new_input(Input, (body, event_id, topic, within, correlation, causation_id, source, occurred_at))

    def _decoder(self, topic: str, version: int) -> Callable[[str], Event]:
        known = self._decoders[topic, version] = decoder(topic, version)
        return known

    def handle(
        self, state: State, event: StoredEvent, cause_position: int, branch: str | None = None
    ) -> tuple[State, Decided]:
        """Fold an input, decide on it, fold the decisions; into ``branch``, where the input may be inherited."""
        seen = self.seen(event)
        state = self._evolve(state, seen)
        wishes = self.brain.decide(state, seen)
        if not wishes:
            return state, _NOTHING
        decided = self.encode(wishes, event, cause_position, branch or event.correlation_id)
        for new, body in zip(decided.events, decided.bodies, strict=True):
            state = self._evolve(state, _input_of_new(new, body))
        return state, decided

    def encode(self, wishes: Sequence[Event | Draft], cause: StoredEvent, cause_position: int, branch: str) -> Decided:
        """Decisions as they will be stored: ids derived from branch and cause, streams within it, the cause's time."""
        events, bodies = [], []
        stream_of_cause = cause.stream if branch == cause.correlation_id else f"{branch}/{within_run(cause)}"
        for ordinal, wish in enumerate(wishes):
            event, stream, causation_id, metadata = (
                (wish.event, wish.stream, wish.causation_id, wish.metadata)
                if isinstance(wish, Draft)
                else (wish, None, None, None)
            )
            new = encode_event(
                event,
                stream=self._stream(stream, stream_of_cause, branch),
                correlation_id=branch,
                causation_id=causation_id or cause.event_id,
                cause_position=cause_position,
                decided_by=self.decider,
                source=self.brain.name,
                event_id=derived_event_id(
                    cause.occurred_at, branch, self.brain.name, stream_of_cause, cause.event_id, ordinal
                ),
                occurred_at=cause.occurred_at,
                metadata=metadata,
            )
            events.append(new)
            bodies.append(decode(new.topic, new.schema_version, new.payload))
        return Decided(tuple(events), tuple(bodies))

    def _stream(self, wish: str | None, stream_of_cause: str, branch: str) -> str:
        if wish is not None:
            return f"{branch}/{wish}"
        return stream_of_cause if self.brain.keyed_by == "stream" else f"{branch}/{self.brain.home}"


class CheckedFolder(Folder[State]):
    """A folder that goes on from no decision of a newer version of its brain."""

    def __init__(self, brain: Brain[State]) -> None:
        super().__init__(brain)
        self._known = {self.decider}

    def seen(self, record: StoredEvent) -> Input:
        """What the brain sees of a record. Raises :class:`NewerVersion`."""
        if record.decided_by is not None and record.decided_by not in self._known and decided_by(self.brain, record):
            self.check(record)
        return super().seen(record)

    def check(self, decision: StoredEvent) -> None:
        """Raise :class:`NewerVersion` for a decision of a newer version: this code must not go on from it."""
        decider = decision.decided_by or ""
        if decider in self._known:
            return
        version = int(decider.partition("@")[2].partition(":")[0])
        if version > self.brain.version:
            raise NewerVersion(what=f"brain {self.brain.name}", stored=version, known=self.brain.version)
        self._known.add(decider)


_NOTHING = Decided((), ())


def _input_of_new(new: NewEvent, body: Event) -> Input:
    event_id, stream, topic, correlation, causation_id, _, _, source, _, _, _, _, occurred_at, _ = new
    within = stream.removeprefix(correlation + "/")
    return _new_input(Input, (body, event_id, topic, within, correlation, causation_id, source, occurred_at or 0))
