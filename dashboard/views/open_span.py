"""A span while it is being folded: its phases so far, its parts, and what it becomes when frozen."""

from __future__ import annotations

from typing import Any, Final

from dashboard.views.cost import FREE, Cost
from dashboard.views.span import Kind, Phase, Segment, Span, shares
from hive_bus import Record

_LONGEST: Final = 120


class Open:
    """A span while it is being folded."""

    def __init__(self, kind: Kind, label: str, record: Record, parent: Open | None, **facts: Any) -> None:
        self.kind, self.label, self.parent = kind, label, parent
        self.position, self.begin = record.position, record.recorded_at
        self.task_id: str = facts.get("task_id", "")
        self.try_number: int = facts.get("try_number", 0)
        self.status = "queued"
        self.until: int | None = None
        self.end: int | None = None
        self.note = ""
        self.attempts = 0
        self.cost: Cost = FREE
        self.critical = False
        self.leaf: bool = facts.get("leaf", False)
        self.segments: list[Segment] = []
        self.phase: Phase = facts.get("phase", "queued")
        self.since = record.recorded_at
        self.children: list[Open] = []
        if parent is not None:
            parent.children.append(self)

    def turn(self, phase: Phase, record: Record, *, status: str = "") -> None:
        """Another phase begins."""
        self._close(record.recorded_at)
        self.phase, self.since = phase, record.recorded_at
        self.status = status or self.status

    def close(self, record: Record, status: str, note: str = "") -> None:
        """It has ended."""
        if self.end is None:
            self._close(record.recorded_at)
        self.until, self.end, self.status = record.position, record.recorded_at, status
        self.note = note or self.note

    def reopen(self, record: Record, status: str) -> None:
        """It goes on after its end: a person asked for another try."""
        self.until = self.end = None
        self.status, self.since = status, record.recorded_at

    def _close(self, now: int) -> None:
        if self.leaf and now > self.since:
            self.segments.append(Segment(self.phase, self.since, now))

    def freeze(self, now: int) -> Span:
        """The span as it stands at ``now``."""
        if self.end is None:
            self._close(now)
        children = tuple(child.freeze(now) for child in self.children)
        inner = tuple(piece for child in children for piece in child.segments)
        segments = tuple(sorted((*self.segments, *inner), key=lambda piece: (piece.begin, piece.end)))
        begin = self.begin
        if self.kind == "task" and children:
            begin = children[0].begin  # until its needs are done, a task waits for nothing of its own
        part = shares(segments, begin, self.end if self.end is not None else now)
        return Span(
            kind=self.kind,
            label=self.label,
            status=self.status,
            position=self.position,
            begin=begin,
            until=self.until,
            end=self.end,
            note=self.note,
            task_id=self.task_id,
            try_number=self.try_number,
            attempts=self.attempts,
            waited=part.waited,
            worked=part.worked,
            asked=part.asked,
            critical=self.critical,
            cost=sum((child.cost for child in children), self.cost),
            segments=segments,
            children=children,
        )


def first_line(text: object, *, limit: int = _LONGEST) -> str:
    """The first line of a text that has something in it, shortened to ``limit`` characters."""
    line = next((line.strip() for line in str(text or "").splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"
