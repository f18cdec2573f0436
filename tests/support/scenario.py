"""Scenarios: several brains on a log in memory, hands played by the test.

Owns ``Hive``: an ordered log, the brains' folds by the very ``Folder`` that the host
uses, and the queue's rules (an intent ends once, a cancelled one by its own words).
``hive.given(...)`` publishes, ``hive.when(...)`` ends an intent, ``hive.decided``
and ``hive.topics`` are what followed. A ``choose`` function may vary the order in
which brains and hands get their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from hive_bus.brains.brain import Brain
from hive_bus.brains.fold import Folder, decided_by, fold_topic, key_of
from hive_bus.effects import CancelRequested, Intent
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.workflow import WorkflowRequested
from hive_bus.record import Record
from hive_core_db.records import NewEvent
from tests.support.purity import pure

E = TypeVar("E", bound=Event)
RUN = "run0000001"


class Hive:
    """Brains, a log, and the intents that are open in it."""

    def __init__(self, *brains: Brain[Any], choose: Callable[[int], int] | None = None) -> None:
        self.log: list[Record] = []
        self.open: dict[str, Record] = {}
        self.cancel_asked: dict[str, str] = {}
        self.ended: dict[str, Record] = {}
        self._versions: dict[str, int] = {}
        self._choose = choose or (lambda _: 0)
        self._folders = [Folder(brain) for brain in brains]
        self._read = [0 for _ in brains]
        self.states: dict[tuple[str, str], Any] = {}

    def given(self, *events: Event, stream: str = "run", settle: bool = True) -> Hive:
        """Publish events into a stream of the run, as a person or a program does."""
        for event in events:
            self._append(event, stream=f"{RUN}/{stream}", source="test")
        if settle:
            self.settle()
        return self

    def when(self, result: Event, *, ends: Record | None = None, settle: bool = True) -> Hive:
        """A hand brings a result: of ``ends``, or of the only open intent that ends so."""
        intent = ends or self._only(result)
        event = intent.event
        assert isinstance(event, Intent)
        assert result.TOPIC in event.ends(), f"{result.TOPIC} does not end {intent.topic}"
        del self.open[intent.event_id]
        self.cancel_asked.pop(intent.event_id, None)
        self.ended[intent.event_id] = self._append(
            result, stream=intent.stream, causation_id=intent.event_id, source="hand"
        )
        if settle:
            self.settle()
        return self

    def cancelled(self, intent: Record, *, settle: bool = True) -> Hive:
        """The queue ends an intent that somebody asked to end."""
        assert isinstance(intent.event, Intent)
        return self.when(intent.event.cancelled(self.cancel_asked[intent.event_id]), ends=intent, settle=settle)

    def settle(self) -> None:
        """Let brains read until none has anything left."""
        while self.read_one():
            pass

    def read_one(self) -> bool:
        """Let one brain, chosen among those with something to read, read one event."""
        behind = [index for index, read in enumerate(self._read) if read < len(self.log)]
        if not behind:
            return False
        index = behind[self._choose(len(behind))]
        record = self.log[self._read[index]]
        self._read[index] += 1
        folder = self._folders[index]
        if fold_topic(folder.brain, record.topic) and not decided_by(folder.brain, record):
            key = key_of(folder.brain, record)
            if key is not None:
                self._handle(folder, key, record)
        return True

    def _handle(self, folder: Folder[Any], key: str, record: Record) -> None:
        place = (folder.brain.name, key)
        state = self.states.get(place, folder.brain.initial())
        with pure():
            self.states[place], decided = folder.handle(state, record, record.position)
        for new in decided.events:
            self._store(new)

    def _append(self, event: Event, *, stream: str, source: str, causation_id: str | None = None) -> Record:
        event_id = f"event-{len(self.log) + 1}"
        new = encode_event(
            event,
            stream=stream,
            correlation_id=RUN,
            event_id=event_id,
            source=source,
            causation_id=causation_id,
            occurred_at=1_000_000,
        )
        return self._store(new)

    def _store(self, new: NewEvent) -> Record:
        self._versions[new.stream] = version = self._versions.get(new.stream, 0) + 1
        position = len(self.log) + 1
        record = Record(
            position=position,
            event_id=new.event_id,
            stream=new.stream,
            version=version,
            topic=new.topic,
            correlation_id=new.correlation_id,
            causation_id=new.causation_id,
            cause_position=new.cause_position,
            decided_by=new.decided_by,
            source=new.source,
            schema_version=new.schema_version,
            payload=new.payload,
            metadata=new.metadata,
            digest=new.digest,
            append_first=position,
            occurred_at=new.occurred_at or 0,
            recorded_at=position,
        )
        self.log.append(record)
        event = record.event
        if isinstance(event, Intent) and event.work() is not None:
            self.open[record.event_id] = record
        elif isinstance(event, CancelRequested) and event.intent_id in self.open:
            self.cancel_asked[event.intent_id] = event.reason
        return record

    def _only(self, result: Event) -> Record:
        fitting = [
            record
            for record in self.open.values()
            if isinstance(record.event, Intent) and result.TOPIC in record.event.ends() and _pairs(record.event, result)
        ]
        assert len(fitting) == 1, f"{len(fitting)} open intents end with {result.TOPIC}"
        return fitting[0]

    @property
    def topics(self) -> list[str]:
        """The topics of the log, in order."""
        return [record.topic for record in self.log]

    def all(self, kind: type[E]) -> list[E]:
        """Every event of a class, in order."""
        return [record.event for record in self.log if isinstance(record.event, kind)]

    def last(self, kind: type[E]) -> E:
        """The latest event of a class."""
        return self.all(kind)[-1]

    def open_of(self, kind: type[Intent]) -> list[Record]:
        """The open intents of a class, oldest first."""
        return [record for record in self.open.values() if isinstance(record.event, kind)]

    def story(self, *, of: str = "") -> list[str]:
        """``topic task`` of each event, without the plan's ``task.created``; ``of`` keeps one task's."""
        return list(_story(self.log, of))

    def refolded(self) -> dict[tuple[str, str], Any]:
        """Every brain's states rebuilt from the log in fold order: a decision directly behind its cause."""
        states: dict[tuple[str, str], Any] = {}
        for folder in self._folders:
            own: dict[int | None, list[Record]] = {}
            for record in self.log:
                if decided_by(folder.brain, record):
                    own.setdefault(record.cause_position, []).append(record)
            for record in self.log:
                key = key_of(folder.brain, record)
                if key is None or decided_by(folder.brain, record) or not fold_topic(folder.brain, record.topic):
                    continue
                place = (folder.brain.name, key)
                state = folder.fold(states.get(place, folder.brain.initial()), record)
                for decision in own.get(record.position, ()):
                    if fold_topic(folder.brain, decision.topic) and key_of(folder.brain, decision) == key:
                        state = folder.fold(state, decision)
                states[place] = state
        return states


def _pairs(intent: Event, result: Event) -> bool:
    """Whether a result may belong to an intent, as far as both name a task or an approval."""
    for field in ("approval_id", "task_id", "conversation", "tool_use_id", "timer_id"):
        asked, answered = getattr(intent, field, None), getattr(result, field, None)
        if asked and answered and asked != answered:
            return False
    return True


def _story(log: Sequence[Record], of: str) -> Iterator[str]:
    for record in log:
        task = getattr(record.event, "task_id", "") or ""
        if record.topic != "task.created" and of in ("", task):
            yield f"{record.topic} {task}".strip()


def asked(*steps: dict[str, Any], **fields: Any) -> WorkflowRequested:
    """A request for a run of these steps."""
    definition = {"name": "test", "steps": list(steps)}
    return WorkflowRequested(name="test", definition=definition, **fields)
