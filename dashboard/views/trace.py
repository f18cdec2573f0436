"""The trace of a run: its state, its spans with waits, work and cost, and what its end had to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.views.run import RunView
from dashboard.views.run_fold import run_view
from dashboard.views.span import Span
from dashboard.views.spans import span_tree
from hive_bus import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceView:
    """A run's spans under one root. ``critical`` are those of its steps that its end had to wait for, in order."""

    run: RunView
    root: Span

    @property
    def critical(self) -> tuple[Span, ...]:
        """The plan and the tasks on the critical path, in the order they began."""
        return tuple(span for span in self.root.children if span.critical and span.kind in ("plan", "task", "tool"))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "run": self.run.as_dict(),
            "critical_path": [span.label for span in self.critical],
            "root": self.root.as_dict(),
        }


def trace_view(records: Sequence[Record], *, now: int | None = None) -> TraceView | None:
    """The trace of a run, from its records in log order; None without any.

    ``now``, UTC microseconds, is until when open spans count; without it, the last record's time.
    """
    run, root = run_view(records), span_tree(records, now=now)
    if run is None or root is None:
        return None
    return TraceView(run=run, root=root)
