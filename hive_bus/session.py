"""One key of one brain: how inputs and own decisions are folded, live and from the log.

The fold order is the same in both: an input sorts by its position, an own decision
directly behind its cause. What is folded is what was stored: a decision is encoded
and decoded before it is folded. This module does no I/O of its own but reading pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pydantic import ValidationError

from hive_bus.brain import Brain, Input, State
from hive_bus.codec import decode, decoder
from hive_bus.envelope import encode_event
from hive_bus.event import Draft, Event
from hive_bus.ids import derived_event_id
from hive_bus.topics import matches
from hive_core_db.records import NewEvent, StoredEvent
from hive_core_db.store import EventLog
from hive_errors import NewerVersion

if TYPE_CHECKING:
    from hive_bus.ahead import Ahead

PAGE = 1000
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


@dataclass(slots=True)
class Session(Generic[State]):
    """A key's state and how far it is handled.

    ``seen`` is the last position that this process knows of the key, ``waiting`` the last
    input among these: the key is at rest when that is handled and every decision, of which
    ``unsettled`` are on their way, is in the log. ``ahead`` is the append under way that was
    decided on before it is in the log.
    """

    key: str
    state: State
    partition: int = 0
    handled: int = 0
    seen: int = 0
    waiting: int = 0
    unsettled: int = 0
    parked: bool = False
    ahead: Ahead[State] | None = None


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

    def handle(self, state: State, event: StoredEvent, cause_position: int) -> tuple[State, Decided]:
        """Fold an input, decide on it, fold the decisions."""
        seen = self.seen(event)
        state = self._evolve(state, seen)
        wishes = self.brain.decide(state, seen)
        if not wishes:
            return state, _NOTHING
        decided = self.encode(wishes, event, cause_position)
        for new, body in zip(decided.events, decided.bodies, strict=True):
            state = self._evolve(state, _input_of_new(new, body))
        return state, decided

    def encode(self, wishes: Sequence[Event | Draft], cause: StoredEvent, cause_position: int) -> Decided:
        """Decisions as they will be stored: ids derived from the cause, streams within the run, the cause's time."""
        events, bodies = [], []
        for ordinal, wish in enumerate(wishes):
            event, stream, causation_id, metadata = (
                (wish.event, wish.stream, wish.causation_id, wish.metadata)
                if isinstance(wish, Draft)
                else (wish, None, None, None)
            )
            new = encode_event(
                event,
                stream=self._stream(stream, cause),
                correlation_id=cause.correlation_id,
                causation_id=causation_id or cause.event_id,
                cause_position=cause_position,
                decided_by=self.decider,
                source=self.brain.name,
                event_id=derived_event_id(
                    cause.occurred_at, cause.correlation_id, self.brain.name, cause.stream, cause.event_id, ordinal
                ),
                occurred_at=cause.occurred_at,
                metadata=metadata,
            )
            events.append(new)
            bodies.append(decode(new.topic, new.schema_version, new.payload))
        return Decided(tuple(events), tuple(bodies))

    def _stream(self, wish: str | None, cause: StoredEvent) -> str:
        if wish is not None:
            return f"{cause.correlation_id}/{wish}"
        if self.brain.keyed_by == "stream":
            return cause.stream
        return f"{cause.correlation_id}/{self.brain.home}"


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


async def load(
    folder: Folder[State], log: EventLog, key: str, *, upto: int, leave_out: Collection[int] = ()
) -> Session[State]:
    """Rebuild a key as it was when every input up to ``upto``, or to the cause of its last own decision, was handled.

    Two reads of one index, inputs and own decisions, are merged: memory is bounded by a page,
    for a key's decisions lie in the order of their causes. ``leave_out`` are inputs that were discarded.
    """
    session: Session[State] = Session(key, folder.brain.initial())
    # One call less for each event than by `fold`: histories are long.
    state, evolve, seen = session.state, folder.brain.evolve, folder.seen
    async with asyncio.TaskGroup() as reads:
        async for page, steps in _merged(folder.brain, log, key, upto=upto, reads=reads):
            session.handled = page[-1].position
            if not steps:
                for cause in page:
                    if not leave_out or cause.position not in leave_out:
                        state = evolve(state, seen(cause))
            for cause, decisions in steps:
                if cause.position not in leave_out:
                    state = evolve(state, seen(cause))
                for decision in decisions:
                    state = evolve(state, seen(decision))
    session.state = state
    session.seen = session.handled
    session.handled = max(session.handled, upto)
    return session


class Step(NamedTuple):
    """An input that was handled, and the decisions that the brain then made on it."""

    cause: StoredEvent
    decisions: Sequence[StoredEvent]


async def walk(brain: Brain[Any], log: EventLog, key: str, *, upto: int) -> AsyncIterator[list[Step]]:
    """The handled inputs of a key in fold order, each with its recorded decisions; a list for each page read."""
    async for page, steps in _merged(brain, log, key, upto=upto, reads=None):
        yield steps or [Step(cause, ()) for cause in page]


async def _merged(
    brain: Brain[Any], log: EventLog, key: str, *, upto: int, reads: asyncio.TaskGroup | None
) -> AsyncIterator[tuple[list[StoredEvent], list[Step]]]:
    """The handled inputs page by page; as steps only where decisions were made on any of them.

    With ``reads`` the next page is read while the caller folds this one.
    """
    inputs, own = Rows(brain, log, key, own=False, reads=reads), Rows(brain, log, key, own=True)
    if reads is not None:
        inputs.begin(reads)
    decisions: deque[StoredEvent] = deque()
    more = True
    while page := await inputs.page():
        last = page[-1].position
        while more and not (decisions and _cause(decisions[-1]) > last):
            news = await own.page()
            decisions.extend(news)
            more = bool(news)
        if not decisions and last <= upto:
            yield page, []
            continue
        steps = []
        for cause in page:
            position = cause.position
            if position > upto and not decisions:
                break
            mine: Sequence[StoredEvent] = ()
            if decisions and _cause(decisions[0]) <= position:
                mine = _take(decisions, position)
            steps.append(Step(cause, mine))
        if steps:
            yield page[: len(steps)], steps
        if len(steps) < len(page):
            return


def _cause(decision: StoredEvent) -> int:
    return decision.cause_position or 0


def _take(decisions: deque[StoredEvent], position: int) -> list[StoredEvent]:
    taken = []
    while decisions and _cause(decisions[0]) <= position:
        taken.append(decisions.popleft())
    return taken


class Rows:
    """The rows of a key, page by page: the inputs that its brain folds, or all of its own decisions."""

    def __init__(
        self, brain: Brain[Any], log: EventLog, key: str, *, own: bool, reads: asyncio.TaskGroup | None = None
    ) -> None:
        self._brain, self._log, self._key, self._own = brain, log, key, own
        self._reads = reads
        self._next: asyncio.Task[list[StoredEvent]] | None = None
        self._after = 0
        self._folds = _Folds(brain)
        self._ended = False

    def begin(self, reads: asyncio.TaskGroup) -> None:
        """Read the first page now, while the caller does something else."""
        self._next = reads.create_task(self._read())

    async def page(self) -> list[StoredEvent]:
        """The next rows, at least one; none at the end."""
        while not self._ended:
            read = await (self._next or self._read())
            self._next = None
            self._ended = len(read) < PAGE
            if read:
                self._after = read[-1].position if self._brain.keyed_by == "correlation" else read[-1].version
            if self._reads is not None and not self._ended:
                self._next = self._reads.create_task(self._read())
            wanted = self._wanted(read)
            if wanted:
                return wanted
        return []

    async def _read(self) -> list[StoredEvent]:
        decider = self._brain.name if self._own else None
        if self._brain.keyed_by == "correlation":
            return await self._log.read_correlation(self._key, after=self._after, limit=PAGE, decider=decider)
        return await self._log.read_stream(self._key, after=self._after, limit=PAGE, decider=decider)

    def _wanted(self, rows: list[StoredEvent]) -> list[StoredEvent]:
        brain, folds = self._brain, self._folds
        if self._own:
            # Whatever was decided counts as decided, also what the brain does not look at again.
            return [row for row in rows if decided_by(brain, row)]
        return [row for row in rows if folds[row.topic] and (row.decided_by is None or not decided_by(brain, row))]


class _Folds(dict[str, bool]):
    """Whether a brain folds a topic, found out once per topic."""

    def __init__(self, brain: Brain[Any]) -> None:
        super().__init__()
        self._brain = brain

    def __missing__(self, topic: str) -> bool:
        known = self[topic] = fold_topic(self._brain, topic)
        return known
