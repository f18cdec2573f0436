"""From a run's records to its spans: what waited, what worked, and what the end had to wait for.

Pure: a fold in plain log order. The critical path needs no estimate, for a decision's cause is the
event that it had to wait for: the chain of causes from the last event back to the first is the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dashboard.views.cost import cost_of
from dashboard.views.open_span import Open, first_line
from dashboard.views.open_spans import OpenSpans
from dashboard.views.places import PLACES
from dashboard.views.span import Span
from hive_bus import Intent, Record
from hive_bus.event import event_class

_QUIET: Final = ("task", "drone", "timer", "workflow", "model", "tool", "approval", "budget")
"""Families whose events are parts of spans, or of no interest in a tree."""


class Spans(OpenSpans):
    """Folds a run's records into spans."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, Record] = {}
        self._last: Record | None = None

    def add(self, record: Record) -> None:
        """Fold one record; they come in log order."""
        if self.root is None:
            self.root = Open("run", record.correlation_id, record, None)
            self.root.status = "running"
        self._records[record.event_id] = record
        if record.topic != "workflow.labelled":
            # Said about the run, perhaps long after its end: nothing had to wait for it.
            self._last = record
        self.owner[record.event_id] = self._place(record)

    def tree(self, *, now: int | None = None) -> Span | None:
        """The run's span, None without a record. ``now`` (UTC microseconds) is where open spans end for now."""
        if self.root is None or self._last is None:
            return None
        self._mark(self._last)
        return self.root.freeze(max(now or 0, self._last.recorded_at))

    def _mark(self, last: Record) -> None:
        """Follow the causes back from the last event."""
        record: Record | None = last
        seen: set[str] = set()
        while record is not None and record.event_id not in seen:
            seen.add(record.event_id)
            span: Open | None = self.owner[record.event_id]
            while span is not None and not span.critical:
                span.critical = True
                span = span.parent
            record = self._records.get(record.causation_id or "")

    def _place(self, record: Record) -> Open:
        """Fold the record into the span it belongs to."""
        place = PLACES.get(record.topic)
        if place is not None and isinstance(record.data, dict):
            return place(self, record, record.data)
        family, _, word = record.topic.rpartition(".")
        intent = self.owner.get(record.causation_id or "")
        if family in ("model", "tool", "approval") or (intent is not None and intent.kind == "effect"):
            return self._lifecycle(record, intent, word)
        if family in _QUIET:
            return self.near(record)
        if _is_intent(record.topic):
            return Open("effect", record.topic, record, self.near(record), leaf=True)
        span = Open("event", record.topic, record, self.near(record))
        span.close(record, "")
        return span

    def _lifecycle(self, record: Record, intent: Open | None, word: str) -> Open:
        """What becomes of an intent: started, attempts, one end."""
        if intent is None:
            return self.near(record)
        data = record.data if isinstance(record.data, dict) else {}
        intent.cost += cost_of(record)
        if word == "started":
            intent.attempts = max(intent.attempts, int(data.get("attempt") or 1))
            intent.turn("working", record, status="working")
        elif word == "attempt_failed":
            intent.turn("queued", record, status="queued")
            intent.note = str(data.get("reason", ""))
        elif word in {"superseded", "cancel_requested"}:
            pass
        else:
            intent.close(record, _ended(word, data), _said(record.topic, data))
        return intent


def _ended(word: str, data: dict[str, Any]) -> str:
    if word in {"failed", "cancelled", "denied", "expired", "granted"}:
        return "unknown" if data.get("kind") == "unknown" else word
    return "failed" if data.get("is_error") else "completed"


def _said(topic: str, data: dict[str, Any]) -> str:
    """The line worth showing beside an ended intent."""
    if topic == "model.responded":
        return ""
    if topic.startswith("approval."):
        who = f"by {data['by']}" if data.get("by") else ""
        return ": ".join(part for part in (who, str(data.get("comment") or "")) if part)
    if data.get("is_error"):
        code = data.get("exit_code")
        return first_line(data.get("output")) if code is None else f"exit code {code}"
    return first_line(data.get("reason"))


def _is_intent(topic: str) -> bool:
    cls = event_class(topic)
    return cls is not None and issubclass(cls, Intent)


def span_tree(records: Sequence[Record], *, now: int | None = None) -> Span | None:
    """The spans of a run, from its records in log order; None without any."""
    spans = Spans()
    for record in records:
        spans.add(record)
    return spans.tree(now=now)
