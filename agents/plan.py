"""Plans: from proposed steps to tasks, or to the reasons why they are refused.

Pure: the planner reads a model's answer with it, the queen judges what she is given.
It must not know runs or events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agents.workflows.grammar import Both, Call, Compare, Constant, Either, Negation, Node, parse_expression
from agents.workflows.task_graph import check_graph, find_cycles
from agents.workflows.workflow import Step
from hive_errors import ExpressionError

__all__ = ["PlanFault", "judge_plan", "loads", "repaired_by", "repairs", "spec_of", "steps_of"]

_FENCE = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_MOST_REASONS = 20


@dataclass(frozen=True, slots=True)
class PlanFault(Exception):
    """A text or a value is no plan; ``reasons`` are sentences for the planner and for people."""

    reasons: tuple[str, ...]


def spec_of(step: Step) -> dict[str, Any]:
    """The step as the log keeps it: every default applied, nothing that is not set."""
    return step.model_dump(mode="json", by_alias=True, exclude_none=True)


def loads(text: str) -> Any:
    """The JSON value that a model wrote: the whole text, or the only fenced block in it.

    Raises:
        PlanFault: there is none, or it holds what the log cannot keep.
    """
    fenced = _FENCE.findall(text)
    candidate = fenced[0] if len(fenced) == 1 else text
    try:
        value = json.loads(candidate, parse_constant=_refused)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise PlanFault((f"the answer is not JSON: {problem}",)) from problem
    if "\\u0000" in candidate:
        raise PlanFault(("the answer holds a NUL character",))
    return value


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def steps_of(value: Any) -> tuple[Step, ...]:
    """The steps of a plan: ``{"steps": [...]}`` or the list alone.

    Raises:
        PlanFault: it is no such thing; every step that is wrong is named.
    """
    listed = value.get("steps") if isinstance(value, Mapping) else value
    if not isinstance(listed, list | tuple):
        raise PlanFault(('the plan must be {"steps": [...]}',))
    steps: list[Step] = []
    reasons: list[str] = []
    for number, raw in enumerate(listed):
        try:
            steps.append(Step.model_validate(raw))
        except ValidationError as error:
            reasons += [_worded(number, dict(detail)) for detail in error.errors(include_url=False)]
    if reasons:
        raise PlanFault(tuple(reasons[:_MOST_REASONS]))
    return tuple(steps)


def _worded(number: int, detail: Mapping[str, Any]) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    return f"steps[{number}]{field}: {detail['msg']}"


def judge_plan(tasks: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Why these tasks are no plan; empty when they are one. ``tools`` are the drones' manifests."""
    try:
        steps = steps_of(tasks)
    except PlanFault as fault:
        return fault.reasons
    if not steps:
        return ("the plan has no steps",)
    reasons = [str(problem) for problem in check_graph(steps)]
    known = tuple(str(tool.get("name")) for tool in tools)
    for number, step in enumerate(steps):
        unknown = [tool for tool in step.tools or () if tool not in known]
        if unknown:
            offered = ", ".join(known) or "none"
            reasons.append(f"steps[{number}].tools: no tool is called {', '.join(unknown)}; the tools are {offered}")
    return tuple(reasons[:_MOST_REASONS])


def repairs(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The needs that this step repairs: those that the condition of a prompt step names in ``failed('...')``."""
    when = spec.get("when")
    if not spec.get("prompt") or not when or "failed" not in when:
        return ()
    try:
        named = _failures(parse_expression(when).root)
    except ExpressionError:
        return ()
    return tuple(need for need in spec.get("needs", ()) if need in named)


def _failures(node: Node) -> tuple[str, ...]:
    match node:
        case Call(name="failed", arguments=(Constant(value=str() as step),)):
            return (step,)
        case Both(terms) | Either(terms):
            return tuple(name for term in terms for name in _failures(term))
        case Call(arguments=arguments):
            return tuple(name for term in arguments for name in _failures(term))
        case Compare(left=left, right=right):
            return (*_failures(left), *_failures(right))
        case Negation(term):
            return _failures(term)
        case _:
            return ()


def repaired_by(specs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """For each task, the repairers of what it needs: it waits for them too, unless they wait for it."""
    edges = {spec["id"]: tuple(spec.get("needs", ())) for spec in specs}
    repairers: dict[str, list[str]] = {}
    for spec in specs:
        for broken in repairs(spec):
            repairers.setdefault(broken, []).append(spec["id"])
    after: dict[str, tuple[str, ...]] = {}
    if not repairers:
        return after
    for spec in specs:
        name = spec["id"]
        for need in spec.get("needs", ()):
            for repairer in repairers.get(need, ()):
                if repairer == name or repairer in edges[name]:
                    continue
                tried = {**edges, name: (*edges[name], repairer)}
                if not find_cycles(tried):
                    edges = tried
                    after[name] = (*after.get(name, ()), repairer)
    return after
