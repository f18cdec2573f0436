"""Workflow files: from YAML text to a checked ``Workflow``, or to every problem with its place.

Owns the wording of the problems of a file. What a field may hold is
``workflow``'s, how steps fit together is ``task_graph``'s, what YAML is is
``workflow_yaml``'s.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from agents.workflows.references import did_you_mean
from agents.workflows.task_graph import check_graph
from agents.workflows.workflow import STEP_ID, Defaults, Step, Workflow, WorkflowFile
from agents.workflows.yaml import LARGEST_TEXT, Node, read_yaml
from hive_errors import Problem, WorkflowFileError

FieldPath: TypeAlias = tuple[str | int, ...]

# Fields whose value is text however it looks: `run: true`, `PORT: 8080`, `id: 1`.
_TEXT_FIELDS = frozenset(
    {"name", "goal", "id", "run", "prompt", "tool", "needs", "when", "capability", "model", "tools"}
)
# What people write out of habit from other tools.
_HABITS = {
    "args": "with",
    "arguments": "with",
    "cmd": "run",
    "command": "run",
    "condition": "when",
    "depends_on": "needs",
    "environment": "env",
    "if": "when",
    "inputs": "with",
    "jobs": "steps",
    "parallel": "max_parallel",
    "script": "run",
    "tasks": "steps",
    "uses": "tool",
}


def load_workflow(
    path: str | Path, *, capabilities: Collection[str] | None = None, tools: Collection[str] | None = None
) -> Workflow:
    """Read a workflow file.

    Args:
        path: the file; its name as given appears in the problems.
        capabilities: the labels that workers have; None leaves them unchecked.
        tools: the names of the registered tools; None leaves them unchecked.

    Raises:
        WorkflowFileError: it cannot be read or is wrong somewhere; every problem is listed.
    """
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(4 * LARGEST_TEXT + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        problem = Problem(path=(), file=file, reason=f"cannot be read: {error.strerror or error}")
        raise WorkflowFileError(file=file, problems=(problem,)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        problem = Problem(path=(), file=file, line=line, column=column, reason="is not UTF-8 text")
        raise WorkflowFileError(file=file, problems=(problem,)) from error
    return parse_workflow(text, file=file, capabilities=capabilities, tools=tools)


def parse_workflow(
    text: str,
    *,
    file: str = "workflow",
    capabilities: Collection[str] | None = None,
    tools: Collection[str] | None = None,
) -> Workflow:
    """Read the text of a workflow file; ``file`` is its name in the problems.

    Raises:
        WorkflowFileError: it is wrong somewhere; every problem is listed, in file order.
    """
    root = read_yaml(text, file=file)
    workflow, problems = _validated(_plain(root, ()), capabilities, tools)
    if workflow is None or problems:
        placed = sorted((_placed(problem, root, file) for problem in problems), key=lambda p: (p.line, p.column))
        raise WorkflowFileError(file=file, problems=tuple(dict.fromkeys(placed)))
    return workflow


def parse_mapping(
    data: Mapping[str, Any],
    *,
    file: str = "plan",
    capabilities: Collection[str] | None = None,
    tools: Collection[str] | None = None,
) -> Workflow:
    """Check a workflow that is a mapping already, such as a model's plan; ``defaults`` are allowed.

    Raises:
        WorkflowFileError: it is wrong somewhere; the problems have no lines.
    """
    workflow, problems = _validated(dict(data), capabilities, tools)
    if workflow is None or problems:
        raise WorkflowFileError(file=file, problems=tuple(replace(problem, file=file) for problem in problems))
    return workflow


def _plain(node: Node, path: FieldPath) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(value, (*path, key)) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item, (*path, place)) for place, item in enumerate(node.value)]
    return node.raw if node.value is not None and _is_text(path) else node.value


def _is_text(path: FieldPath) -> bool:
    below = path[2:] if path[:1] == ("steps",) else path[1:] if path[:1] == ("defaults",) else path
    return bool(below) and (below[0] in _TEXT_FIELDS or (below[0] == "env" and len(below) == 2))


def _validated(
    data: Any, capabilities: Collection[str] | None, tools: Collection[str] | None
) -> tuple[Workflow | None, list[Problem]]:
    workflow: Workflow | None = None
    problems: list[Problem] = []
    try:
        workflow = WorkflowFile.model_validate(data).normalised()
        steps = workflow.steps
    except ValidationError as error:
        details = error.errors(include_url=False)
        # pydantic counts the good items of a list: "too short" is only ours when nothing was written.
        problems = [
            _problem(dict(detail)) for detail in details if detail["type"] != "too_short" or not detail["input"]
        ]
        steps = _readable_steps(data)
    problems += [
        problem
        for problem in check_graph(steps, capabilities=capabilities, tools=tools)
        if not _known(problem, problems)
    ]
    return workflow, problems


def _known(problem: Problem, problems: list[Problem]) -> bool:
    return any(problem.path[: len(other.path)] == other.path for other in problems if len(other.path) > 2)


def _readable_steps(data: Any) -> tuple[Step, ...]:
    """As much of the steps as can be read, so that the graph is judged although a field is wrong."""
    listed = data.get("steps") if isinstance(data, dict) else None
    return tuple(_readable(raw, place) for place, raw in enumerate(listed if isinstance(listed, list) else ()))


def _readable(raw: Any, place: int) -> Step:
    try:
        return Step.model_validate(raw)
    except ValidationError:
        fields = raw if isinstance(raw, dict) else {}
    named = fields.get("id")
    needs = fields.get("needs")
    needs = [needs] if isinstance(needs, str) else needs if isinstance(needs, list) else []
    # A need that is not text is a problem of its own; here it keeps its place and names the step itself nowhere.
    kept: dict[str, Any] = {"needs": tuple(need if isinstance(need, str) else f"\0{place}" for need in needs)}
    kept |= {name: fields[name] for name in ("run", "prompt", "tool", "when") if isinstance(fields.get(name), str)}
    if isinstance(fields.get("env"), dict):
        kept["env"] = {name: value for name, value in fields["env"].items() if isinstance(value, str)}
    return Step.model_construct(id=named if isinstance(named, str) else f"\0{place}", **kept)


def _problem(detail: dict[str, Any]) -> Problem:
    path: FieldPath = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(path=path, value=_shown(detail["input"]), reason="unknown field", suggestion=_meant(path))
    if kind == "missing":
        return Problem(path=path, reason="is missing", suggestion=_example(path))
    if kind == "value_error":
        value = None if isinstance(detail["input"], dict) else _shown(detail["input"])
        return Problem(path=path, value=value, reason=str(context["error"]))
    reason, suggestion = _worded(kind, context, detail, path)
    return Problem(path=path, value=_shown(detail["input"]), reason=reason, suggestion=suggestion)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _fields_at(path: FieldPath) -> tuple[str, ...]:
    model: type[BaseModel] = WorkflowFile
    if path[0] == "steps" and len(path) == 3:
        model = Step
    elif path[0] == "defaults" and len(path) == 2:
        model = Defaults
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _meant(path: FieldPath) -> str:
    name, known = str(path[-1]), _fields_at(path)
    if _HABITS.get(name) in known:
        return f"did you mean {_HABITS[name]}?"
    return did_you_mean(name, known) or f"the fields are {', '.join(known)}"


def _example(path: FieldPath) -> str:
    return {
        "name": "add a line `name: ...`",
        "steps": "add `steps:` with at least one step",
        "id": "add `id: ...`",
    }.get(str(path[-1]), "")


def _worded(kind: str, context: dict[str, Any], detail: dict[str, Any], path: FieldPath) -> tuple[str, str]:
    """The reason and the suggestion for what pydantic found."""
    match kind:
        case "string_type":
            empty = detail["input"] is None
            return ("has no value", "") if empty else ("must be text", "put it in quotes")
        case "string_pattern_mismatch":
            if context["pattern"] == STEP_ID:
                return "must be 1 to 64 letters, digits, _ or -", _tidied(detail["input"])
            return "must be a variable's name: letters, digits and _, not beginning with a digit", ""
        case "int_type" | "int_from_float" | "int_parsing":
            return "must be a whole number", ""
        case "greater_than_equal":
            return f"must be at least {context['ge']}", ""
        case "less_than_equal":
            return f"must be at most {context['le']}", ""
        case "string_too_long" | "too_long":
            return f"must be at most {context['max_length']} {'characters' if path == ('name',) else 'items'}", ""
        case "tuple_type":
            return "must be a list", "begin each item with `- `" if len(path) == 1 else ""
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping of fields to values", ""
        case "too_short":
            return "must not be empty", ""
        case "literal_error":
            expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return f"must be one of {expected}", did_you_mean(_shown(detail["input"]), tuple(expected.split(", ")))
        case _:
            return str(detail["msg"]), ""


def _tidied(value: str) -> str:
    tidy = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in value)[:64].strip(
        "-"
    )
    return f"write {tidy}" if tidy else ""


def _placed(problem: Problem, root: Node, file: str) -> Problem:
    line, column = root.at(problem.path, key=problem.reason == "unknown field")
    return replace(problem, file=file, line=line, column=column)
