"""Spans: the pieces of a run that take time, each with its waits and its work.

Frozen values only; how they are built from records is ``spans.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dashboard.views.cost import FREE, Cost

Kind = Literal["run", "plan", "task", "try", "command", "model", "tool", "review", "approval", "effect", "event"]
Phase = Literal["queued", "working", "person"]
MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a span's time, UTC microseconds: ``queued``, ``working``, or waiting for a ``person``."""

    phase: Phase
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something of a run that took time, and what it was made of.

    ``position`` is where it begins in the log, ``until`` where it ended (None: it has not).
    ``begin`` and ``end`` are UTC microseconds. Of a span made of others, ``worked`` is the time in which
    any of them was worked on, ``asked`` the time in which only a person was waited for, ``waited`` the
    rest; all in seconds. ``critical``: the run's end had to wait for it.
    """

    kind: Kind
    label: str
    status: str
    position: int
    begin: int
    until: int | None = None
    end: int | None = None
    note: str = ""
    task_id: str = ""
    try_number: int = 0
    attempts: int = 0
    waited: float = 0.0
    worked: float = 0.0
    asked: float = 0.0
    critical: bool = False
    cost: Cost = FREE
    segments: tuple[Segment, ...] = ()
    children: tuple[Span, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from its begin to its end, or to the last event known."""
        return self.waited + self.worked + self.asked

    def walk(self) -> Iterator[Span]:
        """This span and all below it, each before its parts."""
        waiting = [self]
        while waiting:
            span = waiting.pop()
            yield span
            waiting.extend(reversed(span.children))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: times in UTC microseconds, durations in seconds."""
        return {
            "kind": self.kind,
            "label": self.label,
            "status": self.status,
            "note": self.note,
            "task_id": self.task_id,
            "try_number": self.try_number,
            "attempts": self.attempts,
            "position": self.position,
            "until": self.until,
            "begin": self.begin,
            "end": self.end,
            "waited": self.waited,
            "worked": self.worked,
            "asked": self.asked,
            "critical": self.critical,
            "cost": self.cost.as_dict(),
            "children": [child.as_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Shares:
    """How a stretch of time divides, in seconds."""

    waited: float
    worked: float
    asked: float


def shares(segments: Sequence[Segment], begin: int, end: int) -> Shares:
    """Divide ``begin`` to ``end``: work wins over waiting for a person, and that over plain waiting."""
    working = _covered([piece for piece in segments if piece.phase == "working"])
    either = _covered([piece for piece in segments if piece.phase in ("working", "person")])
    rest = max(end - begin - either, 0)
    return Shares(rest / MICROSECONDS, working / MICROSECONDS, (either - working) / MICROSECONDS)


def _covered(segments: Sequence[Segment]) -> int:
    """How many microseconds lie in at least one of the segments."""
    total, reached = 0, 0
    for piece in sorted(segments, key=lambda one: one.begin):
        if piece.end > max(reached, piece.begin):
            total += piece.end - max(reached, piece.begin)
            reached = piece.end
    return total
