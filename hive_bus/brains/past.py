"""The past of a key: its inputs and its own decisions, read from the log in fold order.

Of a branch, each run of its lineage handled a part: what its parent had left unhandled, then its own.
Memory is bounded by a page. This module reads; what is done with what it reads is its callers'.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import Folder, decided_by, fold_topic, run_of_key
from hive_bus.brains.session import Session
from hive_bus.brains.snapshots import Start
from hive_bus.lineage import FORKED, PAGE, Segment, lineage, run_of
from hive_bus.topics import is_pattern
from hive_core_db.records import StoredEvent
from hive_core_db.store import EventLog


async def load(
    folder: Folder[State], log: EventLog, key: str, *, upto: int, leave_out: Collection[int] = (),
    start: Start[State] | None = None,
) -> Session[State]:  # fmt: skip
    """Rebuild a key as it was when every input up to ``upto``, or to the cause of its last own decision, was handled.

    ``leave_out`` are inputs that were discarded, ``start`` is where to begin. Of a branch in which nothing was handled
    yet, the session says what it ``inherits``: inputs behind ``handled`` that its parents left to be handled in the branch.
    """
    session: Session[State] = Session(key, folder.brain.initial())
    if start is not None:
        session.state, session.handled, session.folded, session.kept = (
            start.state, start.handled, start.folded, start.folded,
        )  # fmt: skip
    # One call less for each event than by `fold`: histories are long.
    state, evolve, seen = session.state, folder.brain.evolve, folder.seen
    inherits: tuple[Segment, ...] = ()
    async with asyncio.TaskGroup() as reads:
        async for life in lives(folder.brain, log, key, upto=upto, start=start):
            if life.forked is not None:
                state = folder.brain.inherit(state, seen(life.forked))
            async for page, steps in life.pages(reads):
                session.handled = page[-1].position
                session.folded += len(page) + sum(len(step.decisions) for step in steps)
                if not steps:
                    for cause in page:
                        if not leave_out or cause.position not in leave_out:
                            state = evolve(state, seen(cause))
                for cause, decisions in steps:
                    if cause.position not in leave_out:
                        state = evolve(state, seen(cause))
                    for decision in decisions:
                        state = evolve(state, seen(decision))
            inherits = () if life.begun else life.segments
    session.state, session.inherits = state, inherits
    session.seen = session.handled
    if not inherits:
        session.handled = max(session.handled, upto)
    return session


async def opens(brain: Brain[Any], log: EventLog, record: StoredEvent) -> bool:
    """Whether the record begins its key, so that there is no past to read."""
    if record.version != 1 or record.topic != brain.opens:
        return False
    # What begins within a branch is under its terms from the first.
    return brain.keyed_by == "correlation" or len(await lineage(log, run_of(record.stream))) == 1


class Step(NamedTuple):
    """An input that was handled, and the decisions that the brain then made on it."""

    cause: StoredEvent
    decisions: Sequence[StoredEvent]


@dataclass(slots=True)
class Life:
    """What one run of a key's lineage handled: the inputs behind ``after``, and the decisions it made on them.

    ``forked`` is the event that began the run as a branch, unless the state is one behind the decisions up to ``decided``,
    which has it already. ``begun`` is False for a branch that has handled no event
    of its own: then what it inherits was handled up to the cause of its last decision. ``handled`` is how far it came,
    once its pages were read.
    """

    brain: Brain[Any]
    log: EventLog
    key: str
    segments: tuple[Segment, ...]
    after: int
    upto: int
    begun: bool
    last: bool
    decided: int = 0
    handled: int = 0

    @property
    def run(self) -> str:
        """The run into which its decisions went."""
        return self.segments[-1].correlation_id

    @property
    def forked(self) -> StoredEvent | None:
        """The event that began the run as a branch of another, where the state does not have it."""
        return None if self.decided else self.segments[-1].forked

    async def pages(
        self, reads: asyncio.TaskGroup | None = None
    ) -> AsyncIterator[tuple[list[StoredEvent], list[Step]]]:
        """The handled inputs page by page in fold order; as steps only where decisions were made on any of them.

        With ``reads`` the next page is read while the caller folds this one.
        """
        self.handled = self.after
        own = Rows(self.brain, self.log, self.key, self.segments[-1:], own=True, after=self.decided)
        decisions = deque([] if self.begun else await own.page())
        segments = self.segments
        if not self.begun and own.finished:
            # What was inherited counts as handled up to the cause of the last decision: nothing behind it is read.
            segments = _up_to(_cause(decisions[-1]) if decisions else 0, segments)
        inputs = Rows(self.brain, self.log, self.key, segments, own=False, after=self.after, reads=reads)
        if reads is not None:
            inputs.begin(reads)
        async for page, steps in _merged(inputs, own, decisions, self.upto):
            self.handled = page[-1].position
            yield page, steps


async def lives(
    brain: Brain[Any], log: EventLog, key: str, *, upto: int, start: Start[Any] | None = None
) -> AsyncIterator[Life]:
    """The lives that a key led in the runs of its lineage, oldest first; read each to its end before the next.

    With a ``start`` what lies before it is left out.
    """
    segments = await lineage(log, run_of_key(brain, key))
    first, handled, decided = (1, 0, 0) if start is None else (start.life, start.handled, start.decided)
    for number, segment in enumerate(segments[first - 1 :], start=first):
        last = number == len(segments)
        begun = last and (segment.forked is None or await _begun(brain, log, key, segment, upto))
        # An ancestor had handled what it had decided on: its decisions behind the fork are not the branch's.
        life = Life(brain, log, key, segments[:number], handled, upto if begun else 0, begun, last, decided)
        yield life
        decided = 0
        handled = max(handled, life.handled)


async def _begun(brain: Brain[Any], log: EventLog, key: str, segment: Segment, upto: int) -> bool:
    """Whether the branch has handled an event of its own: then it had handled what it inherits before."""
    if brain.keyed_by == "correlation" and fold_topic(brain, FORKED) and segment.forked is not None:
        return segment.forked.position <= upto
    first = await Rows(brain, log, key, (segment,), own=False).page()
    return bool(first) and first[0].position <= upto


def _up_to(position: int, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """What lies at or before a position."""
    return tuple(
        replace(part, upto=position if part.upto is None else min(part.upto, position))
        for part in segments
        if part.after < position
    )


async def _merged(
    inputs: Rows, own: Rows, decisions: deque[StoredEvent], upto: int
) -> AsyncIterator[tuple[list[StoredEvent], list[Step]]]:
    """Two reads of one index, inputs and own decisions, whose first may be known: these lie in the order of their causes."""
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
    """The rows of a key behind position ``after``, page by page: the inputs that its brain folds, or its own decisions."""

    def __init__(
        self, brain: Brain[Any], log: EventLog, key: str, segments: Sequence[Segment], *, own: bool, after: int = 0,
        reads: asyncio.TaskGroup | None = None,
    ) -> None:  # fmt: skip
        self._brain, self._log, self._own, self._first = brain, log, own, after
        self._segments = deque(segments)
        self._within = "" if brain.keyed_by == "correlation" else key.removeprefix(run_of(key))
        self._reads = reads
        self._next: asyncio.Task[list[StoredEvent]] | None = None
        self._after = 0
        self._folds = Folds(brain)
        # Where it names its topics, nothing else need leave the database.
        self._topics = None if any(map(is_pattern, brain.folds)) else brain.folds

    @property
    def finished(self) -> bool:
        """Whether every page was read."""
        return self._next is None and not self._segments

    def begin(self, reads: asyncio.TaskGroup) -> None:
        """Read the first page now, while the caller does something else."""
        if self._segments:
            self._next = reads.create_task(self._read())

    async def page(self) -> list[StoredEvent]:
        """The next rows, at least one; none at the end."""
        while self._next is not None or self._segments:
            read = await (self._next or self._read())
            self._next = None
            if self._reads is not None and self._segments:
                self._next = self._reads.create_task(self._read())
            wanted = self._wanted(read)
            if wanted:
                return wanted
        return []

    async def _read(self) -> list[StoredEvent]:
        """A page of the oldest segment that is not read yet."""
        segment = self._segments[0]
        decider = self._brain.name if self._own else None
        if self._within:
            stream = f"{segment.correlation_id}{self._within}"
            rows = await self._log.read_stream(stream, after=self._after, limit=PAGE, decider=decider)
        else:
            after = max(self._after, self._first, segment.after)
            run, topics = segment.correlation_id, None if self._own else self._topics
            rows = await self._log.read_correlation(
                run, after=after, until=segment.upto, limit=PAGE, decider=decider, topics=topics
            )
        if len(rows) < PAGE or segment.ends_before(rows[-1].position + 1):
            self._segments.popleft()
            self._after = 0
        else:
            self._after = rows[-1].version if self._within else rows[-1].position
        rows = segment.cut(rows)
        return [row for row in rows if row.position > self._first] if self._within and self._first else rows

    def _wanted(self, rows: list[StoredEvent]) -> list[StoredEvent]:
        brain, folds = self._brain, self._folds
        if self._own:
            # Whatever was decided counts as decided, also what the brain does not look at again.
            return [row for row in rows if decided_by(brain, row)]
        return [row for row in rows if folds[row.topic] and (row.decided_by is None or not decided_by(brain, row))]


class Folds(dict[str, bool]):
    """Whether a brain folds a topic, found out once per topic."""

    def __init__(self, brain: Brain[Any]) -> None:
        super().__init__()
        self._brain = brain

    def __missing__(self, topic: str) -> bool:
        known = self[topic] = fold_topic(self._brain, topic)
        return known
