"""An append in the making: events that are about to happen, each followed by what its brain decides on them.

Owns the order of these events and the brain's state behind them. It is all or nothing:
the append names the key's owner and that the key was quiet, so what was decided ahead is
either exactly what would have been decided behind it, or not in the log. It knows no log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from hive_bus.brains.brain import State
from hive_bus.brains.fold import SAME_APPEND, Decided, Folder
from hive_bus.effects import Intent
from hive_bus.envelope import work_changes
from hive_bus.event import Event
from hive_bus.record import Record
from hive_core_db.records import AppendRequest, NewEvent, WorkChange

_new_record: Callable[[type[Record], tuple[object, ...]], Record] = tuple.__new__


class Ahead(Generic[State]):
    """Decisions on events that are not in the log yet.

    ``owner`` and ``quiet`` are conditions of the append. ``state`` is the brain's behind the
    last event, ``handled`` counts the events up to the last that is no decision, ``intents``
    are the intents among the decisions, in order: whoever takes one from there ends it.
    """

    def __init__(
        self, folder: Folder[State], folds: Callable[[str], bool], state: State, *, quiet: dict[str, int],
        owner: tuple[str, int, str, int],
    ) -> None:  # fmt: skip
        self.state = state
        self.quiet = quiet
        self.owner = owner
        self.events: list[NewEvent] = []
        self.work: list[WorkChange] = []
        self.intents: deque[tuple[NewEvent, Intent]] = deque()
        self.handled = 0
        self._folder = folder
        self._folds = folds

    def add(self, events: Sequence[NewEvent], work: Iterable[WorkChange]) -> None:
        """Add events and what they do to the queue, and decide on them; whatever the brain raises, nothing was added."""
        state, first = self.state, len(self.events)
        found: list[Decided] = []
        for index, event in enumerate(events, first):
            if self._folds(event.topic):
                state, decided = self._folder.handle(state, provisional(event), SAME_APPEND - index)
                if decided.events:
                    found.append(decided)
        self.state = state
        self.events += events
        self.handled = len(self.events)
        self.work += work
        for decided in found:
            self._keep(decided.events, decided.bodies)

    def _keep(self, events: Sequence[NewEvent], bodies: Sequence[Event]) -> None:
        self.work += work_changes(bodies, first=len(self.events))
        self.events += events
        for event, body in zip(events, bodies, strict=True):
            if isinstance(body, Intent):
                self.intents.append((event, body))

    def request(self, epoch: int) -> AppendRequest:
        """All of it as one append."""
        return AppendRequest(
            epoch=epoch, events=tuple(self.events), owner=self.owner, quiet=self.quiet, work=tuple(self.work)
        )


def provisional(event: NewEvent) -> Record:
    """A new event as a record without coordinates, which no brain sees anyway."""
    (
        event_id, stream, topic, correlation_id, causation_id, _, _, source, schema_version, payload, metadata, digest,
        occurred_at, _,
    ) = event  # fmt: skip
    return _new_record(
        Record,
        (
            0, event_id, stream, 0, topic, correlation_id, causation_id, None, None, source, schema_version, payload,
            metadata, digest, 0, occurred_at or 0, 0,
        ),
    )  # fmt: skip
