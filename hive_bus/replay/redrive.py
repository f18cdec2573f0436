"""Replay: run recorded history through today's brains and compare, without any effect.

``redrive`` folds the recorded decisions and puts today's beside them, so that every
difference stands alone: one changed rule is named where it first matters, and what
follows from it is not blamed on it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import Folder
from hive_bus.brains.past import Step, lives
from hive_core_db.records import NewEvent, StoredEvent
from hive_core_db.store import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where today's brain decides otherwise: the cause's position, and both decisions as (stream, topic, payload).

    ``before`` is the state that the cause was folded into, ``after`` the one that was decided from (None: it cannot
    be folded).
    """

    position: int
    topic: str
    brain: str
    recorded: tuple[tuple[str, str, str], ...]
    today: tuple[tuple[str, str, str], ...]
    recorded_by: str | None
    error: str = ""
    before: Any = field(default=None, repr=False, compare=False)
    after: Any = field(default=None, repr=False, compare=False)

    @property
    def other_version(self) -> bool:
        """Whether the recorded decision was made by another version of the brain (its digest differs)."""
        return self.recorded_by is not None and not self.recorded_by.startswith(self.brain)


async def redrive(log: EventLog, brain: Brain[Any], key: str, *, upto: int) -> AsyncIterator[Difference]:
    """Every input of ``key`` up to ``upto`` on which today's ``brain`` decides otherwise than recorded.

    Where it cannot even fold what was recorded, that is the last difference: nothing behind it can be judged.
    Of a branch only its own decisions are compared: those that it inherits are its ancestors' to answer for.
    """
    folder = Folder(brain)
    state = brain.initial()
    async for life in lives(brain, log, key, upto=upto):
        if life.forked is not None:
            state = brain.inherit(state, folder.seen(life.forked))
        async for page, steps in life.pages():
            for step in steps or [Step(cause, ()) for cause in page]:
                state, difference, lost = _compare(folder, state, step, life.run if life.last else None)
                if difference is not None:
                    yield difference
                if lost:
                    return


Decisions = tuple[tuple[str, str, str], ...]


def _compare(folder: Folder[State], state: State, step: Step, run: str | None) -> tuple[State, Difference | None, bool]:
    """Fold an input and what was decided on it; what today's code would decide instead, if it differs; whether it failed to fold.

    ``run`` is where it was decided; None: it is only folded.
    """
    error, lost = "", False
    recorded: Decisions = ()
    today: Decisions = ()
    if run is not None:
        recorded = tuple((row.stream, row.topic, row.payload) for row in step.decisions)
        try:
            decided_state, decided = folder.handle(state, step.cause, step.cause.position, run)
            if _same(decided.events, step.decisions):
                return decided_state, None, False
            today = tuple((new.stream, new.topic, new.payload) for new in decided.events)
        except Exception as problem:  # noqa: BLE001 - a brain that fails on an old event is what redrive is asked about
            error = _said(problem)
    before, after = state, None
    try:
        state = after = folder.fold(state, step.cause)
        for row in step.decisions:
            state = folder.fold(state, row)
    except Exception as problem:  # noqa: BLE001 - as above, and there is no state to go on from
        error, lost = error or _said(problem), True
    if recorded == today and not error:
        return state, None, False
    found = Difference(
        position=step.cause.position,
        topic=step.cause.topic,
        brain=folder.decider,
        recorded=recorded,
        today=today,
        recorded_by=step.decisions[0].decided_by if step.decisions else None,
        error=error,
        before=before,
        after=after,
    )
    return state, found, lost


def _same(today: Sequence[NewEvent], recorded: Sequence[StoredEvent]) -> bool:
    """Whether they are the same events in all that a brain may see: then their fold is the recorded one's."""
    return len(today) == len(recorded) and all(
        (new.payload, new.topic, new.stream, new.event_id, new.causation_id)
        == (row.payload, row.topic, row.stream, row.event_id, row.causation_id)
        for new, row in zip(today, recorded, strict=True)
    )


def _said(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"


async def keys_of_run(log: EventLog, brain: Brain[Any], correlation_id: str) -> Sequence[str]:
    """The keys under which ``brain`` folds a run: the run itself, or its streams."""
    if brain.keyed_by == "correlation":
        return [correlation_id]
    streams: dict[str, None] = {}
    after = 0
    while page := await log.read_correlation(correlation_id, after=after, limit=1000):
        for row in page:
            if row.stream.startswith(f"{correlation_id}/{brain.stream_prefix}"):
                streams.setdefault(row.stream)
        after = page[-1].position
    return list(streams)
