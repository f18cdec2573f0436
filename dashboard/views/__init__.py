"""Views: pure functions from records to frozen values that the command line and the HTTP API show alike.

No HTTP and no terminal here, and no reading either: whoever has records passes them in.
"""

from dashboard.views.cost import FREE, Cost, cost_of
from dashboard.views.run import Question, RunView, TaskView
from dashboard.views.run_fold import RunFold, is_run, run_view
from dashboard.views.span import Segment, Span
from dashboard.views.spans import Spans, span_tree
from dashboard.views.trace import TraceView, trace_view

__all__ = [
    "FREE",
    "Cost",
    "Question",
    "RunFold",
    "RunView",
    "Segment",
    "Span",
    "Spans",
    "TaskView",
    "TraceView",
    "cost_of",
    "is_run",
    "run_view",
    "span_tree",
    "trace_view",
]
