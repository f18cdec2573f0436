"""Usage: who used what and what it cost, one line for each model call and tool call, added up by whatever is asked.

A pure fold of the events that say so, in log order. Every event is of one run or branch alone, so what branches share is
counted once, where it happened. Times are UTC microseconds, durations seconds, days those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dashboard.views.cost import FREE, Cost, cost_of
from hive_bus import Record

DIMENSIONS: Final = ("run", "branch", "task", "drone", "role", "model", "tool", "day", "charge")
"""What usage can be added up by. ``run`` is the one that all its branches descend from, ``charge`` each single call."""
_STARTS: Final = frozenset({"model.started", "tool.started", "task.assigned"})
_ASKS: Final = frozenset({"model.requested", "tool.requested", "task.ready"})
_ENDS: Final = frozenset(
    {f"{family}.{word}" for family in ("model", "tool") for word in ("attempt_failed", "failed", "cancelled")}
    | {"model.responded", "model.superseded", "tool.returned", "task.returned", "task.attempt_failed"}
)
_FAILED: Final = frozenset({"attempt_failed", "failed", "cancelled"})
TOPICS: Final = tuple(sorted(_STARTS | _ENDS | {"task.ready"}))
"""The topics that are folded; of the others that ask, only those of failures need to be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One call. ``position`` and ``event_id`` are those of the event that says what became of it: the charge.

    ``run`` is the root of ``branch``; ``drone`` is the drone's name, or the role of whoever else asked a model.
    ``tool`` is empty for a model call, ``model`` for a tool's. ``failed``: it gave no answer, or a late one.
    """

    position: int
    event_id: str
    at: int
    run: str
    branch: str
    task: str = ""
    drone: str = ""
    role: str = ""
    model: str = ""
    tool: str = ""
    cost: Cost = FREE
    seconds: float = 0.0
    failed: bool = False

    def key(self, dimension: str) -> str:
        """What it is added up under."""
        if dimension == "day":
            return datetime.fromtimestamp(self.at / 1_000_000, UTC).strftime("%Y-%m-%d")
        if dimension == "charge":
            return str(self.position)
        return str(getattr(self, dimension))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Calls added up. ``failed`` counts attempts without an answer that anybody used, ``seconds`` is what all took."""

    cost: Cost = FREE
    tools: int = 0
    failed: int = 0
    seconds: float = 0.0

    def with_use(self, use: Use) -> Usage:
        """One more call."""
        return Usage(
            cost=self.cost + use.cost,
            tools=self.tools + bool(use.tool),
            failed=self.failed + use.failed,
            seconds=self.seconds + use.seconds,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rest = {"tools": self.tools, "failed": self.failed, "seconds": round(self.seconds, 6)}
        return self.cost.as_dict() | rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What a branch shares with an ancestor up to a position: counted there, not here."""

    run: str
    upto: int
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageView:
    """Usage by some dimensions: ``rows`` are (values of ``by``, usage), the dearest first, days and charges in order."""

    by: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], Usage], ...]
    total: Usage
    inherited: tuple[Inherited, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "by": list(self.by),
            "rows": [dict(zip(self.by, key, strict=True)) | usage.as_dict() for key, usage in self.rows],
            "total": self.total.as_dict(),
            "inherited": [{"run": one.run, "upto": one.upto} | one.usage.as_dict() for one in self.inherited],
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an intent says of its call."""

    task: str = ""
    try_number: int = 1
    role: str = ""
    model: str = ""
    tool: str = ""


class Meter:
    """Folds records into uses. ``roots`` name the run that a branch descends from; others are their own.

    Where records do not begin with a run, ``unknown`` names the intents that it has to be told of with ``know``.
    """

    def __init__(self, roots: Mapping[str, str] | None = None) -> None:
        self._roots = roots or {}
        self._asked: dict[str, _Asked] = {}
        self._began: dict[str, int] = {}

    def know(self, intent: Record) -> None:
        """Remember who asked for an effect."""
        if intent.topic in _ASKS:
            self._asked[intent.event_id] = _asked(intent.topic, _body(intent))

    def unknown(self, records: Iterable[Record]) -> list[str]:
        """The ids of intents that these records need, and that are neither known nor among them."""
        wanted: dict[str, None] = {}
        asked = set(self._asked)
        for record in records:
            intent = record.causation_id or ""
            if record.topic in _ASKS:
                asked.add(record.event_id)
            elif record.topic in _ENDS and intent not in asked and _says(record) is None:
                wanted[intent] = None
        return [intent for intent in wanted if intent]

    def add(self, record: Record) -> Use | None:
        """Fold one record; they come in log order. The use, where one ended with it."""
        intent = record.causation_id or ""
        if record.topic in _ASKS:
            self.know(record)
        elif record.topic in _STARTS:
            # What a brain assigns goes to a drone: its calls are counted one by one.
            if record.decided_by is None:
                self._began[intent] = record.recorded_at
        elif record.topic in _ENDS:
            return self._ended(record, intent)
        return None

    def _ended(self, record: Record, intent: str) -> Use | None:
        family, _, word = record.topic.rpartition(".")
        began, cost = self._began.pop(intent, None), cost_of(record)
        asked = _says(record) or self._asked.get(intent, _Asked())
        if word not in {"attempt_failed", "superseded"}:
            self._asked.pop(intent, None)
        if began is None and cost == FREE and word in _FAILED:
            return None  # nobody had begun with it
        return Use(
            position=record.position,
            event_id=record.event_id,
            at=record.recorded_at,
            run=self._roots.get(record.correlation_id, record.correlation_id),
            branch=record.correlation_id,
            task=asked.task,
            drone=_drone(record, asked, family),
            role=asked.role,
            model=asked.model.removeprefix("anthropic:"),
            tool=asked.tool,
            cost=cost,
            seconds=0.0 if began is None else (record.recorded_at - began) / 1_000_000,
            failed=word in _FAILED or word == "superseded",
        )


def usage_view(uses: Iterable[Use], by: Sequence[str], *, inherited: Sequence[Inherited] = ()) -> UsageView:
    """Uses added up by ``by``. By model only model calls count, by tool only tools', by both or neither all of them."""
    found: dict[tuple[str, ...], Usage] = {}
    total = Usage()
    for use in uses:
        if ("model" in by or "role" in by) != ("tool" in by) and bool(use.tool) != ("tool" in by):
            continue
        key = tuple(use.key(dimension) for dimension in by)
        found[key] = found.get(key, Usage()).with_use(use)
        total = total.with_use(use)
    if by and by[0] in {"day", "charge"}:
        rows = sorted(found.items(), key=lambda row: (len(row[0][0]), row[0]))
    else:
        rows = sorted(found.items(), key=lambda row: (-row[1].cost.dollars, -row[1].cost.tokens_in, row[0]))
    return UsageView(by=tuple(by), rows=tuple(rows), total=total, inherited=tuple(inherited))


def _body(record: Record) -> dict[str, Any]:
    return record.data if isinstance(record.data, dict) else {}


def _asked(topic: str, data: Mapping[str, Any]) -> _Asked:
    """What an intent, or an event that repeats it, says."""
    task, number = str(data.get("task_id") or ""), int(data.get("try_number") or 1)
    if topic.startswith("model."):
        return _Asked(task, number, str(data.get("role") or ""), str(data.get("model") or ""))
    tool = str(data.get("tool") or data.get("capability") or data.get("kind") or "tool")
    return _Asked(task, number, tool=tool)


def _says(record: Record) -> _Asked | None:
    """What an end says of its intent by itself; None: the intent has to be known."""
    data = _body(record)
    if record.topic == "model.superseded":
        result = data.get("result")
        return _asked("model.", result if isinstance(result, dict) else {})
    if record.topic.startswith("model.") and "role" in data:
        return _asked("model.", data)
    return _asked("tool.", data) if record.topic == "tool.returned" else None


def _drone(record: Record, asked: _Asked, family: str) -> str:
    name = record.stream.removeprefix(f"{record.correlation_id}/drone/")
    if name != record.stream:
        return name
    return asked.role if family == "model" else ""
