"""The task graph: whether the steps of a workflow or of a plan fit together.

Duplicate ids, unknown needs, cycles, capabilities and tools that nobody has,
and references to steps that are not needed. Pure; the planner's plans and
people's files go through the same checks. It knows neither files nor lines:
a problem carries the path of its field, whoever read a file adds the place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from agents.workflows.grammar import parse_expression
from agents.workflows.references import did_you_mean
from agents.workflows.templates import parse_command, parse_template
from agents.workflows.workflow import Step
from hive_errors import ExpressionError, Problem, TemplateError

Path: TypeAlias = tuple[str | int, ...]

_LONGEST_CIRCLE = 20


def check_graph(
    steps: Sequence[Step],
    *,
    capabilities: Collection[str] | None = None,
    tools: Collection[str] | None = None,
) -> tuple[Problem, ...]:
    """Return everything that keeps these steps from being run as one graph; empty when nothing does.

    Args:
        steps: the steps, in file or plan order.
        capabilities: the labels that workers have; None leaves them unchecked.
        tools: the names of the registered tools; None leaves them unchecked.
    """
    # A step without a readable id has one that begins with NUL (see workflow_file): never to be shown.
    ids = tuple(dict.fromkeys(step.id for step in steps if not step.id.startswith("\0")))
    return (
        *_duplicates(steps),
        *_unknown_needs(steps, ids),
        *_cycles(steps),
        *_unoffered(steps, capabilities, tools),
        *_references(steps, ids),
    )


def _duplicates(steps: Sequence[Step]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, step in enumerate(steps):
        if step.id in first:
            reason = f"is the id of steps[{first[step.id]}] already"
            yield Problem(path=("steps", number, "id"), value=step.id, reason=reason, suggestion="give it another id")
        first.setdefault(step.id, number)


def _unknown_needs(steps: Sequence[Step], ids: tuple[str, ...]) -> Iterator[Problem]:
    known = set(ids)
    for number, step in enumerate(steps):
        for place, need in enumerate(step.needs):
            path = ("steps", number, "needs", place)
            if need not in known:
                suggestion = did_you_mean(need, ids) or f"the steps are {_some(ids)}"
                yield Problem(path=path, value=need, reason="no step has this id", suggestion=suggestion)
            elif need in step.needs[:place]:
                yield Problem(path=path, value=need, reason="is needed twice", suggestion="name it once")


def find_cycles(needs: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return cycles of a graph, each closed (``a, b, a``); empty exactly when the graph has none.

    Every edge that leads back into the path being walked gives one. Needs that are
    not keys are passed over.
    """
    cycles: list[tuple[str, ...]] = []
    done: set[str] = set()
    for root in needs:
        path: dict[str, Iterator[str]] = {}
        if root not in done:
            path[root] = iter(needs[root])
        while path:
            last = next(reversed(path))
            need = next(path[last], None)
            if need is None:
                done.add(last)
                del path[last]
            elif need in path:
                nodes = list(path)
                cycles.append((*nodes[nodes.index(need) :], need))
            elif need in needs and need not in done:
                path[need] = iter(needs[need])
    return tuple(cycles)


def _cycles(steps: Sequence[Step]) -> Iterator[Problem]:
    needs = {step.id: step.needs for step in reversed(steps)}  # of two steps with one id the first counts
    ordered = {step.id: needs[step.id] for step in steps}
    numbers = {step.id: number for number, step in reversed(list(enumerate(steps)))}
    for cycle in find_cycles(ordered):
        last, first = cycle[-2], cycle[-1]
        path = ("steps", numbers[last], "needs", ordered[last].index(first))
        reason = "a step cannot need itself" if len(cycle) == 2 else f"the steps wait for each other: {_arrows(cycle)}"
        yield Problem(path=path, value=first, reason=reason, suggestion="take one of these needs away")


def _arrows(cycle: tuple[str, ...]) -> str:
    if len(cycle) > _LONGEST_CIRCLE:
        between = len(cycle) - _LONGEST_CIRCLE
        cycle = (*cycle[: _LONGEST_CIRCLE - 1], f"... and {between} more", cycle[-1])
    return " needs ".join(cycle)


def _unoffered(
    steps: Sequence[Step], capabilities: Collection[str] | None, tools: Collection[str] | None
) -> Iterator[Problem]:
    for number, step in enumerate(steps):
        path: Path = ("steps", number)
        if capabilities is not None and step.capability is not None and step.capability not in capabilities:
            reason = "no worker has this capability"
            yield _unknown((*path, "capability"), step.capability, reason, capabilities, "capabilities")
        if tools is None:
            continue
        if step.tool is not None and step.tool not in tools:
            yield _unknown((*path, "tool"), step.tool, "no tool has this name", tools, "tools")
        for place, tool in enumerate(step.tools or ()):
            if tool not in tools:
                yield _unknown((*path, "tools", place), tool, "no tool has this name", tools, "tools")


def _unknown(path: Path, value: str, reason: str, known: Collection[str], what: str) -> Problem:
    names = tuple(sorted(known))
    listed = f"the {what} are {_some(names)}" if names else f"there are no {what}"
    return Problem(path=path, value=value, reason=reason, suggestion=did_you_mean(value, names) or listed)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _references(steps: Sequence[Step], ids: tuple[str, ...]) -> Iterator[Problem]:
    needs = {step.id: step.needs for step in steps}
    for number, step in enumerate(steps):
        named: list[tuple[Path, str, str]] = []
        yield from _condition(step, ("steps", number, "when"), named)
        for path, text in _texts(step, ("steps", number)):
            yield from _placeholders(step, path, text, named)
        if not named:
            continue
        reached = _reached(step, needs)
        for path, value, other in named:
            if other not in reached:
                yield _unreached(step, path, value, other, ids)


def _condition(step: Step, path: Path, named: list[tuple[Path, str, str]]) -> Iterator[Problem]:
    if step.when is None:
        return
    try:
        expression = parse_expression(step.when)
    except ExpressionError as error:
        reason = f"{error.reason} at character {error.column}"
        yield Problem(path=path, value=step.when, reason=reason, suggestion=error.suggestion)
        return
    named += [(path, step.when, other) for other in dict.fromkeys(name for name, _ in expression.steps)]


def _texts(step: Step, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text of a step that may hold placeholders, ``run`` first."""
    for field in ("run", "prompt", "approval"):
        text = getattr(step, field)
        if isinstance(text, str):
            yield (*path, field), text
    for name, text in step.env.items():
        yield (*path, "env", name), text
    yield from _nested(step.arguments, (*path, "with"))


def _nested(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nested(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _nested(item, (*path, place))


def _placeholders(step: Step, path: Path, text: str, named: list[tuple[Path, str, str]]) -> Iterator[Problem]:
    try:
        template = parse_command(text) if path[2] == "run" else parse_template(text)
    except TemplateError as error:
        yield Problem(path=path, value=error.placeholder, reason=error.reason, suggestion=error.suggestion)
        return
    for part in template.placeholders:
        if part.reference.root == "steps":
            named.append((path, part.text, part.reference.name))
        elif part.reference.root == "env" and (path[2] == "env" or part.reference.name not in step.env):
            reason = f"the step sets no variable {part.reference.name!r}"
            if path[2] == "env":
                reason = "a variable cannot be made of another one"
            known = tuple(step.env)
            suggestion = did_you_mean(part.reference.name, known) or f"add it to the env of {step.id}"
            yield Problem(path=path, value=part.text, reason=reason, suggestion="" if path[2] == "env" else suggestion)


def _reached(step: Step, needs: Mapping[str, Sequence[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(step.needs)
    while waiting:
        need = waiting.pop()
        if need not in reached:
            reached.add(need)
            waiting.extend(needs.get(need, ()))
    return reached


def _unreached(step: Step, path: Path, value: str, other: str, ids: tuple[str, ...]) -> Problem:
    if other not in ids:
        suggestion = did_you_mean(other, ids) or f"the steps are {_some(ids)}"
        return Problem(path=path, value=value, reason=f"no step has the id {other!r}", suggestion=suggestion)
    if other == step.id:
        return Problem(path=path, value=value, reason="a step cannot read its own result")
    reason = f"step {other!r} is not among the needs, so it may not have run yet"
    return Problem(path=path, value=value, reason=reason, suggestion=f"add {other} to the needs of {step.id}")
