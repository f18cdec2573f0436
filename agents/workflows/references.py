"""References: the paths with which conditions and placeholders name a value.

``steps.test.output``, ``steps['my step'].json.a[0]``, ``run.id``, ``env.NAME``.
This module reads them and looks them up. It knows neither conditions nor
placeholders, and touches no clock, file or environment: brains call it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

StepStatus: TypeAlias = Literal["pending", "completed", "failed", "skipped", "cancelled"]
Key: TypeAlias = str | int

STEP_FIELDS = ("output", "exit_code", "status", "json")
RUN_FIELDS = ("id", "goal", "name")

_NAME = re.compile(r"[\w-]+")
_INDEX = re.compile(r"\[\s*(-?[0-9]{1,9})\s*\]")
_QUOTED = re.compile(r"""\[\s*(?:'([^']*)'|"([^"]*)")\s*\]""")
_ROOTS = ("steps", "run", "env")


class ReferenceFault(ValueError):
    """A reference cannot be read or has no value; the caller says in which text it stands."""

    def __init__(self, reason: str, *, offset: int = 0, suggestion: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """What the later steps may see of a step.

    ``output`` is its standard output without the last newline, or the drone's
    final text; ``exit_code`` is None where no command ran.
    """

    status: StepStatus = "pending"
    output: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything a placeholder can name: the run, the steps before, the step's own variables."""

    run_id: str = ""
    goal: str | None = None
    name: str = ""
    steps: Mapping[str, StepView] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One path as written: a root, the name below it, a field of a step, and keys into its JSON."""

    root: str
    name: str
    field: str = ""
    keys: tuple[Key, ...] = ()
    text: str = ""
    offset: int = 0


def parse_reference(text: str, start: int = 0) -> tuple[Reference, int]:
    """Read the reference that begins at ``start``; return it and the offset behind it.

    Raises:
        ReferenceFault: there is none, or it names something that does not exist.
    """
    match = _NAME.match(text, start)
    root = match.group() if match else ""
    if match is None or root not in _ROOTS:
        raise ReferenceFault(
            f"{root!r} is not a value" if root else "a value is expected",
            offset=start,
            suggestion=did_you_mean(root, _ROOTS) or "write steps.ID.output, run.id or env.NAME",
        )
    keys, end = _keys(text, match.end())
    try:
        reference = _checked(root, keys)
    except ReferenceFault as fault:
        fault.offset = start
        raise
    return (
        Reference(
            root=root,
            name=reference.name,
            field=reference.field,
            keys=reference.keys,
            text=text[start:end],
            offset=start,
        ),
        end,
    )


def _keys(text: str, position: int) -> tuple[list[Key], int]:
    keys: list[Key] = []
    while position < len(text) and text[position] in ".[":
        if text[position] == ".":
            name = _NAME.match(text, position + 1)
            if name is None:
                raise ReferenceFault("a name is expected after the dot", offset=position + 1)
            keys.append(name.group())
            position = name.end()
        elif index := _INDEX.match(text, position):
            keys.append(int(index.group(1)))
            position = index.end()
        elif quoted := _QUOTED.match(text, position):
            keys.append(quoted.group(1) if quoted.group(1) is not None else quoted.group(2))
            position = quoted.end()
        else:
            raise ReferenceFault("[0] or ['name'] is expected", offset=position)
    return keys, position


def _checked(root: str, keys: list[Key]) -> Reference:
    name = keys[0] if keys else None
    if not isinstance(name, str):
        raise ReferenceFault(f"{root} needs a name behind it", suggestion=f"write {root}.NAME")
    rest = keys[1:]
    if root == "steps":
        return _checked_step(name, rest)
    if root == "run" and name not in RUN_FIELDS:
        suggestion = did_you_mean(name, RUN_FIELDS) or f"a run has {', '.join(RUN_FIELDS)}"
        raise ReferenceFault(f"a run has no {name!r}", suggestion=suggestion)
    if rest:
        raise ReferenceFault(f"{root}.{name} is text and has nothing below it")
    return Reference(root=root, name=name)


def _checked_step(step: str, rest: list[Key]) -> Reference:
    fields = ", ".join(STEP_FIELDS)
    if not rest or not isinstance(rest[0], str):
        raise ReferenceFault(f"steps.{step} needs a field behind it", suggestion=f"a step has {fields}")
    field_name, keys = rest[0], tuple(rest[1:])
    if field_name not in STEP_FIELDS:
        suggestion = did_you_mean(field_name, STEP_FIELDS) or f"a step has {fields}"
        raise ReferenceFault(f"a step has no {field_name!r}", suggestion=suggestion)
    if keys and field_name != "json":
        raise ReferenceFault(
            f"{field_name} has nothing below it",
            suggestion=f"write steps.{step}.json to look into JSON output",
        )
    return Reference(root="steps", name=step, field=field_name, keys=keys)


def look_up(reference: Reference, scope: Scope) -> Any:
    """Return the value a reference names; a key that is not in the JSON gives None.

    A step that has not run has no JSON and gives None as well.

    Raises:
        ReferenceFault: the step, variable or goal is unknown, or the output is not JSON.
    """
    if reference.root == "env":
        if reference.name not in scope.env:
            raise ReferenceFault(f"the step sets no variable {reference.name!r}", suggestion="add it to the step's env")
        return scope.env[reference.name]
    if reference.root == "run":
        return {"id": scope.run_id, "goal": scope.goal or None, "name": scope.name}[reference.name]
    view = scope.steps.get(reference.name)
    if view is None:
        raise ReferenceFault(f"there is no step {reference.name!r} to read from")
    if reference.field != "json":
        return getattr(view, reference.field)
    if view.status not in ("completed", "failed"):
        return None
    return _descend(_decoded(view.output, reference.name), reference.keys)


def _decoded(output: str, step: str) -> Any:
    try:
        return json.loads(output, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ReferenceFault(f"the output of step {step!r} is not JSON: {error}") from error


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _descend(value: Any, keys: tuple[Key, ...]) -> Any:
    for key in keys:
        in_object = isinstance(value, dict) and isinstance(key, str) and key in value
        in_list = isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value)
        if not (in_object or in_list):
            return None
        value = value[key]
    return value


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    """Return ``did you mean X?`` for the known name that is closest, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""
