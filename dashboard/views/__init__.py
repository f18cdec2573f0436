"""Views: pure functions from records to frozen values that the command line and the HTTP API show alike.

No HTTP and no terminal here. Only ``reading``, ``runs`` and ``then`` ask the bus; to all others, whoever has records passes them in.
"""

from dashboard.views.activity import Activity, activities, effect_topics
from dashboard.views.comparison import Comparison, Effect, FileChange, Pair, TaskChange, compare
from dashboard.views.comparison_reading import read_comparison
from dashboard.views.cost import FREE, Cost, cost_of
from dashboard.views.presence import AgentView, ProcessView, agent_views, live_tails, process_view
from dashboard.views.reading import read_agents, read_status
from dashboard.views.run import Question, RunView, TaskView
from dashboard.views.run_fold import RunFold, is_run, run_view
from dashboard.views.runs import newest_runs
from dashboard.views.span import Segment, Span
from dashboard.views.spans import Spans, span_tree
from dashboard.views.status import CapabilityView, GroupView, StatusView
from dashboard.views.then import read_agents_at, read_status_at
from dashboard.views.trace import TraceView, trace_view
from dashboard.views.usage import DIMENSIONS, Meter, Usage, UsageView, Use, usage_view
from dashboard.views.usage_reading import read_usage
from dashboard.views.why import Step, WhyView, Writer, why
from dashboard.views.why_reading import read_why

__all__ = [
    "DIMENSIONS",
    "FREE",
    "Activity",
    "AgentView",
    "CapabilityView",
    "Comparison",
    "Cost",
    "Effect",
    "FileChange",
    "GroupView",
    "Meter",
    "Pair",
    "ProcessView",
    "Question",
    "RunFold",
    "RunView",
    "Segment",
    "Span",
    "Spans",
    "StatusView",
    "Step",
    "TaskChange",
    "TaskView",
    "TraceView",
    "Usage",
    "UsageView",
    "Use",
    "WhyView",
    "Writer",
    "activities",
    "agent_views",
    "compare",
    "cost_of",
    "effect_topics",
    "is_run",
    "live_tails",
    "newest_runs",
    "process_view",
    "read_agents",
    "read_agents_at",
    "read_comparison",
    "read_status",
    "read_status_at",
    "read_usage",
    "read_why",
    "run_view",
    "span_tree",
    "trace_view",
    "usage_view",
    "why",
]
