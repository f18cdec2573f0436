"""Why something is as it is: the causes of an event, walked back to the goal, and who wrote a file.

Pure: the records of one history in, frozen values out. A call and what came of it are one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from dashboard.views.cost import CHARGED, FREE, Cost, cost_of
from dashboard.views.open_span import first_line
from hive_bus import Record

_CALLS: Final = frozenset({"model.requested", "tool.requested", "task.ready"})
_QUIET: Final = frozenset({"workflow.started", "workflow.plan_requested", "drone.hatched", "task.assigned"})
"""They are causes, and say nothing that their neighbours do not."""
_RESUMED: Final = frozenset(
    {"drone.buzzed", "model.responded", "tool.returned", "task.returned", "task.review_completed", "task.retried"}
)
"""What a branch goes on from: what its parent had heard last of the same drone or task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One cause: an event, or a call with its end. ``what`` says it in a line, ``by`` who did or decided it."""

    position: int
    event_id: str
    topic: str
    at: int
    run: str
    what: str
    by: str = ""
    cost: Cost = FREE

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in ("position", "event_id", "topic", "at", "run", "what", "by")} | {
            "cost": self.cost.as_dict()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A call that changed a file: whose, in which try, and how the reviewers judged that try (verdict, who, position)."""

    position: int
    what: str
    task: str
    try_number: int
    drone: str
    commit: str
    merged: bool
    reviews: tuple[tuple[str, str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        reviews = [{"verdict": verdict, "by": by, "position": position} for verdict, by, position in self.reviews]
        names = ("position", "what", "task", "try_number", "drone", "commit", "merged")
        return {name: getattr(self, name) for name in names} | {"reviews": reviews}


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyView:
    """``steps`` lead from the goal to ``what``; ``writers`` are a file's, the first one first, and the last of them ends the steps."""

    run: str
    what: str
    steps: tuple[Step, ...]
    writers: tuple[Writer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "run": self.run,
            "what": self.what,
            "steps": [step.as_dict() for step in self.steps],
            "writers": [writer.as_dict() for writer in self.writers],
        }


def why(
    run: str, records: Sequence[Record], subject: Record, *, what: str = "", writers: Sequence[Writer] = ()
) -> WhyView:
    """The causes of ``subject``, one of a run's records, from the goal on."""
    by_id = {record.event_id: record for record in records}
    steps = _steps(_causes(subject, by_id, records))
    return WhyView(run=run, what=what or _headline(subject, steps), steps=tuple(steps), writers=tuple(writers))


def calls_that_may_write(records: Sequence[Record]) -> list[tuple[Record, Record, str, str]]:
    """Calls that left another tree than they began with: intent, end, and both commits, in log order."""
    intents = {record.event_id: record for record in records if record.topic in {"tool.requested", "task.ready"}}
    found = []
    for record in records:
        intent = intents.get(record.causation_id or "")
        if (
            intent is None
            or record.topic not in {"tool.returned", "task.returned"}
            or _tool(intent).startswith("workspace.")
        ):
            continue
        place = intent.data.get("workspace") or {}
        before, after = str(place.get("commit") or place.get("base") or ""), str(record.data.get("commit") or "")
        if before and after and before != after:
            found.append((intent, record, before, after))
    return found


def writer(records: Sequence[Record], intent: Record, end: Record, commit: str) -> Writer:
    """Who made a call that changed a file, and what became of it."""
    task, number = str(intent.data.get("task_id") or ""), int(intent.data.get("try_number") or 1)
    home = intent.stream.removeprefix(f"{intent.correlation_id}/drone/")
    reviews = []
    merged = False
    for record in records:
        if record.position <= end.position or not isinstance(record.data, dict) or record.data.get("task_id") != task:
            continue
        if record.topic == "task.review_completed":
            reviews.append((str(record.data.get("verdict")), _reviewer(records, record), record.position))
        merged = merged or record.topic == "task.completed"
    return Writer(
        position=end.position,
        what=_call(intent),
        task=task,
        try_number=number,
        drone=home if home != intent.stream else "",
        commit=commit,
        merged=merged,
        reviews=tuple(reviews),
    )


def _reviewer(records: Sequence[Record], verdict: Record) -> str:
    """Who judged: the model that the reviewer asked."""
    cause = next((record for record in records if record.event_id == verdict.causation_id), None)
    model = str(cause.data.get("model") or "") if cause is not None and cause.topic == "model.responded" else ""
    if model.startswith("scripted:"):
        model = f"scripted:{PurePath(model[9:]).name}"
    return f"reviewer ({model})" if model else "reviewer"


def _causes(subject: Record, by_id: Mapping[str, Record], records: Sequence[Record]) -> list[Record]:
    """From the first cause to the subject."""
    chain: list[Record] = []
    seen: set[str] = set()
    record: Record | None = subject
    while record is not None and record.event_id not in seen:
        seen.add(record.event_id)
        before = _inherited(chain[-1], record, records) if chain and record.topic == "workflow.forked" else None
        chain.append(record)
        record = before or by_id.get(record.causation_id or "")
    return chain[::-1]


def _inherited(first: Record, forked: Record, records: Sequence[Record]) -> Record | None:
    """The last that was known, where a run was forked, of what ``first`` of the branch is about."""
    found = None
    for record in records:
        if record.position >= forked.position:
            break
        if record.topic in _RESUMED and _about(record) == _about(first):
            found = record
    return found


def _about(record: Record) -> str:
    """The drone or the task of an event."""
    _, _, home = record.stream.partition("/")
    data = record.data if isinstance(record.data, dict) else {}
    return home if home.startswith("drone/") else str(data.get("task_id") or record.event_id)


def _steps(chain: Sequence[Record]) -> list[Step]:
    steps: list[Step] = []
    for number, record in enumerate(chain):
        following = chain[number + 1] if number + 1 < len(chain) else None
        if record.topic in _CALLS and following is not None and _ends(record, following):
            continue  # it is told with what came of it
        if record.topic in _QUIET and following is not None:
            continue
        before = chain[number - 1] if number and _ends(chain[number - 1], record) else None
        steps.append(
            Step(
                position=record.position,
                event_id=record.event_id,
                topic=record.topic,
                at=record.recorded_at,
                run=record.correlation_id,
                what=_told(record, before),
                by=str(record.metadata.get("by") or (record.decided_by or "").partition("@")[0] or record.source),
                cost=cost_of(record),
            )
        )
    return steps


def _ends(intent: Record, end: Record) -> bool:
    """Whether the second is what came of the first."""
    family = intent.topic.partition(".")[0]
    own = end.topic.partition(".")[0] == family and end.causation_id == intent.event_id
    return intent.topic in _CALLS and own and not end.topic.endswith("assigned")


def _headline(subject: Record, steps: Sequence[Step]) -> str:
    cost = steps[-1].cost
    if subject.topic in CHARGED and cost != FREE:
        price = f"${cost.dollars:f}" if not cost.unpriced else "a price that nobody knows"
        return f"{price} for {cost.tokens_in} tokens in and {cost.output_tokens} out"
    return f"{subject.topic} at {subject.position}"


def _told(record: Record, intent: Record | None) -> str:
    """What happened, in a line."""
    data = record.data if isinstance(record.data, dict) else {}
    said = first_line(
        data.get("reason") or data.get("output") or data.get("text") or data.get("question") or data.get("comment")
    )
    match record.topic:
        case "workflow.requested":
            return f"asked for: {first_line(data.get('goal')) or data.get('name') or record.correlation_id}"
        case "workflow.forked":
            return f"branch of {data.get('parent')} at {data.get('position')}"
        case "workflow.plan_generated":
            return (
                f"the plan: {', '.join(str(task.get('id')) for task in data.get('tasks') or ()) or data.get('error')}"
            )
        case "task.created":
            return f"task {data.get('task_id')}: {data.get('name')}"
        case "drone.buzzed":
            return f"drone {data.get('drone_id')} is given: {first_line(data.get('prompt'))}"
        case "task.review_requested":
            return f"a review of {data.get('task_id')} is asked for, round {data.get('round')}"
        case "task.review_completed":
            verdict = str(data.get("verdict")).replace("_", " ")
            return ": ".join(
                filter(None, (f"{data.get('task_id')} {verdict}", first_line("; ".join(data.get("comments") or ()))))
            )
        case "task.ready":
            return f"task {data.get('task_id')} may begin, try {data.get('try_number') or 1}"
        case _ if intent is not None:
            return ": ".join(filter(None, (_call(intent), said or _spoken(data))))
        case "model.requested" | "tool.requested":
            return _call(record)
        case _:
            task = data.get("task_id")
            name = record.topic.replace(".", " ").replace("_", " ")
            return ": ".join(filter(None, (f"{name} ({task})" if task else name, said)))


def _call(intent: Record) -> str:
    data = intent.data
    if intent.topic == "model.requested":
        task = data.get("task_id")
        about = f" about {task}" if task and data.get("role") != "drone" else ""
        who = (
            f"drone {task}.{data.get('try_number') or 1}"
            if data.get("role") == "drone"
            else f"{data.get('role')}{about}"
        )
        return f"{who}, turn {data.get('turn')}"
    if intent.topic == "task.ready":
        return (
            f"{data.get('task_id')}: $ {first_line(data.get('command') or data.get('tool') or data.get('capability'))}"
        )
    given = data.get("input") if isinstance(data.get("input"), dict) else {}
    told = next((given[name] for name in ("command", "path", "pattern") if given and given.get(name)), "")
    return f"{_tool(intent)} {first_line(told)}".rstrip()


def _tool(intent: Record) -> str:
    return str(intent.data.get("tool") or "")


def _spoken(data: Mapping[str, Any]) -> str:
    """What a model said, or which tools it wants."""
    message = data.get("message")
    blocks = message.get("content") if isinstance(message, dict) else ()
    said = [str(block.get("text") or f"uses {block.get('name')}") for block in blocks or () if isinstance(block, dict)]
    return first_line("; ".join(said))
