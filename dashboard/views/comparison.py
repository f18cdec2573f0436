"""A comparison of two runs or branches: what they did alike, aligned by effect keys, and where what came of it differs.

Pure: two histories in, frozen values out. An effect has a partner in the other run that has the same key, at the same place if
there is one; else one at the same place that was asked for otherwise. Durations are seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from dashboard.views.commit_names import CommitNames, text
from dashboard.views.cost import FREE, Cost, cost_of
from dashboard.views.open_span import first_line
from dashboard.views.run import RunView, TaskView
from dashboard.views.run_fold import run_view
from hive_bus import Record

Fate = Literal["reused", "changed", "new", "lost"]
_UNLIKE: Final = frozenset({"commit", "worktree", "ttft", "provider_request_id", "cost", "prices", "attempts"})
"""Fields of a result that say how it came about, not what it is."""
_TOKENS: Final = frozenset(
    {"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"}
)
_MERGES: Final = frozenset({"workspace.integrate", "workspace.finish"})
"""Their results name commits, which are others in every run."""
_TOOK: Final = "seconds"
"""How long a command took, in its result's data."""
_ASKS: Final = frozenset({"model.requested", "tool.requested", "task.ready"})
_BESIDE: Final = frozenset({"started", "assigned", "attempt_failed", "superseded", "cancel_requested"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A model call, a tool call or a step's command. ``position`` is its intent's, ``said`` the first line of its result.

    ``place`` is where in the run it was asked for, ``key`` what was asked, ``result`` what came of it (empty: nothing yet).
    """

    kind: str
    label: str
    task: str
    place: tuple[str, ...]
    key: str
    position: int
    result: str = ""
    said: str = ""
    cost: Cost = FREE
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rest = {"cost": self.cost.as_dict(), "seconds": self.seconds, "key": self.key}
        return {
            "kind": self.kind,
            "label": self.label,
            "task": self.task,
            "position": self.position,
            "said": self.said,
        } | rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two effects that belong together, or one without a partner. ``asked`` says that they were asked for otherwise."""

    fate: Fate
    a: Effect | None = None
    b: Effect | None = None
    asked: bool = False

    @property
    def either(self) -> Effect:
        """The one of ``b`` where it has one."""
        effect = self.b or self.a
        assert effect is not None
        return effect

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        sides = {"a": self.a and self.a.as_dict(), "b": self.b and self.b.as_dict()}
        return {"fate": self.fate, "asked_otherwise": self.asked} | sides


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChange:
    """What became of a task in each, by field; only what differs."""

    task: str
    fields: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that differs between the two trees; counts are lines, None for what is no text. ``state`` is git's letter."""

    path: str
    state: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """``a`` and ``b`` beside each other; ``pairs`` are their effects in the order of ``b``, then what only ``a`` has.

    ``run`` is what differs of the runs themselves, by field; ``tasks`` what differs of theirs. ``files`` is None
    where nobody looked, or ``unlike`` says why they cannot be compared; ``patch`` is the difference of their contents.
    """

    a: RunView
    b: RunView
    pairs: tuple[Pair, ...]
    run: Mapping[str, tuple[Any, Any]]
    tasks: tuple[TaskChange, ...]
    shared: int = 0
    files: tuple[FileChange, ...] | None = None
    unlike: str = ""
    patch: str = ""

    @property
    def differences(self) -> tuple[Pair, ...]:
        """The effects that are not alike."""
        return tuple(pair for pair in self.pairs if pair.fate != "reused")

    @property
    def empty(self) -> bool:
        """Whether the two did the same, and the same came of it."""
        return not (self.differences or self.run or self.tasks or self.files)

    def count(self, fate: Fate) -> int:
        """How many effects have this fate."""
        return sum(pair.fate == fate for pair in self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; of effects that are alike only the number."""
        return {
            "a": _summary(self.a),
            "b": _summary(self.b),
            "empty": self.empty,
            "shared_events": self.shared,
            "effects": {fate: self.count(fate) for fate in ("reused", "changed", "new", "lost")},
            "differences": [pair.as_dict() for pair in self.differences],
            "run": {name: list(values) for name, values in self.run.items()},
            "tasks": [
                {"task": one.task} | {name: list(both) for name, both in one.fields.items()} for one in self.tasks
            ],
            "files": None if self.files is None else [asdict(one) for one in self.files],
            "files_unlike": self.unlike,
            "patch": self.patch,
        }


def compare(a: str, first: Sequence[Record], b: str, second: Sequence[Record]) -> Comparison:
    """Compare two runs or branches, by their ids and their histories (``bus.history``; a branch's begins with what it inherits)."""
    left, right = _viewed(a, first), _viewed(b, second)
    pairs = _paired(effects(a, first), effects(b, second))
    same_request = {record.event_id for record in first}
    return Comparison(
        a=left,
        b=right,
        pairs=tuple(pairs),
        run=_differences(_run_facts(left), _run_facts(right)),
        tasks=tuple(_task_changes(left, right)),
        shared=sum(record.event_id in same_request for record in second),
    )


def effects(run: str, records: Sequence[Record]) -> list[Effect]:
    """Every effect of a run in the order in which it was asked for.

    What a branch inherited open is left out: it asked for that again.
    """
    found: dict[str, Effect] = {}
    began: dict[str, int] = {}
    inherited: set[str] = set()
    names = CommitNames()
    for record in records:
        word = record.topic.rpartition(".")[2]
        known = found.get(record.causation_id or "")
        if record.topic in _ASKS:
            if record.data.get("kind") != "prompt":
                found[record.event_id] = _asked(record, names.key(record))
                if record.correlation_id != run:
                    inherited.add(record.event_id)
        elif known is not None and record.topic.startswith(f"{known.kind}."):
            place = record.causation_id or ""
            known = replace(known, cost=known.cost + cost_of(record))
            if word in {"started", "assigned"}:
                began[place] = record.recorded_at
            elif word not in _BESIDE:
                seconds = (record.recorded_at - began.get(place, record.recorded_at)) / 1_000_000
                known = replace(known, result=_result(record), said=_said(record), seconds=seconds)
                names.learn(known.key, known.result, record)
            found[place] = known
    return [effect for event_id, effect in found.items() if effect.result or event_id not in inherited]


def _asked(record: Record, key: str) -> Effect:
    data, within = record.data, record.stream.removeprefix(f"{record.correlation_id}/")
    kind, task = record.topic.partition(".")[0], str(data.get("task_id") or "")
    if kind == "model":
        label = f"{data.get('role') or 'model'}, turn {data.get('turn') or 1}"
        place = (within, kind, str(data.get("conversation") or ""), str(data.get("turn") or 1))
    elif kind == "tool":
        label = f"{data.get('tool')} {_told(data.get('input'))}".rstrip()
        place = (within, kind, task, str(data.get("tool")))
    else:
        label = first_line(data.get("command") or data.get("tool") or data.get("capability"))
        place = (within, kind, task, str(data.get("try_number") or 1))
    return Effect(kind=kind, label=label, task=task, place=place, key=key, position=record.position)


def _told(given: Any) -> str:
    """The argument that says most."""
    values = given if isinstance(given, dict) else {}
    named = (values.get(name) for name in ("command", "path", "pattern"))
    return first_line(next((value for value in named if value), ""), limit=60)


def _result(record: Record) -> str:
    """What came of an effect, without how it came about."""
    data = record.data if isinstance(record.data, dict) else {}
    unlike = _UNLIKE | _TOKENS
    if str(data.get("tool")) in _MERGES:
        unlike |= {"output", "data"}
    kept = {name: value for name, value in data.items() if name not in unlike}
    if data.get("tool") == "command" and isinstance(kept.get("data"), dict):
        kept["data"] = {name: value for name, value in kept["data"].items() if name != _TOOK}
    return text([record.topic, kept])


def _said(record: Record) -> str:
    data = record.data if isinstance(record.data, dict) else {}
    if record.topic != "model.responded":
        return first_line(data.get("reason") or data.get("output") or data.get("outcome"))
    message = data.get("message")
    blocks = message.get("content") if isinstance(message, dict) else ()
    uses = [str(block.get("text") or f"uses {block.get('name')}") for block in blocks or () if isinstance(block, dict)]
    return first_line("; ".join(uses))


def _paired(first: Sequence[Effect], second: Sequence[Effect]) -> Iterator[Pair]:
    """Partners: same key at the same place, same key anywhere, same place with another key; in this order."""
    partners: dict[int, int] = {}
    taken: set[int] = set()
    rules: tuple[Callable[[Effect], Hashable], ...] = (
        lambda effect: (effect.place, effect.key),
        lambda effect: (effect.kind, effect.key),
        lambda effect: effect.place,
        lambda effect: effect.place[:-1] if effect.kind == "tool" else effect.place,
    )
    for rule in rules:
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for number, effect in enumerate(first):
            if number not in taken:
                waiting[rule(effect)].append(number)
        for number, effect in enumerate(second):
            if number not in partners and waiting[rule(effect)]:
                partners[number] = waiting[rule(effect)].pop(0)
                taken.add(partners[number])
    for number, effect in enumerate(second):
        if number not in partners:
            yield Pair(fate="new", b=effect)
            continue
        other = first[partners[number]]
        asked = other.key != effect.key
        alike = not asked and other.result == effect.result
        yield Pair(fate="reused" if alike else "changed", a=other, b=effect, asked=asked)
    for number, effect in enumerate(first):
        if number not in taken:
            yield Pair(fate="lost", a=effect)


def _viewed(run: str, records: Sequence[Record]) -> RunView:
    view = run_view(records)
    if view is None:
        raise ValueError(f"run {run} has no history")
    return replace(view, id=run)


def _run_facts(run: RunView) -> dict[str, Any]:
    return {"status": run.status, "output": run.output, "reason": run.reason}


def _task_changes(a: RunView, b: RunView) -> Iterator[TaskChange]:
    left, right = ({task.id: task for task in run.tasks} for run in (a, b))
    for name in dict.fromkeys([*left, *right]):
        changed = _differences(_task_facts(left.get(name)), _task_facts(right.get(name)))
        if changed:
            yield TaskChange(task=name, fields=changed)


def _task_facts(task: TaskView | None) -> dict[str, Any]:
    if task is None:
        return {"status": None}
    return {
        "status": task.status,
        "output": task.output,
        "exit_code": task.exit_code,
        "tries": task.try_number,
        "verdicts": list(task.verdicts),
    }


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs; where one side is not there at all, only that."""
    names = [name for name in a if name in b] if len(a) != len(b) else list(a)
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _summary(run: RunView) -> dict[str, Any]:
    return {
        "run": run.id,
        "status": run.status,
        "seconds": run.seconds,
        "cost": run.cost.as_dict(),
        "commit": run.commit,
    }
