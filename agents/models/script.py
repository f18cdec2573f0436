"""The file of a scripted model: its shape, and its errors with file, line and field.

This module owns reading and validating; what an answer means is ``scripted``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from agents.workflows.references import did_you_mean
from agents.workflows.yaml import Node, read_yaml
from hive_errors import Problem, ScriptInvalid, WorkflowFileError

__all__ = ["Answer", "Fault", "Prices", "Script", "ToolUse", "load_script", "parse_script"]

_Price = Annotated[Decimal, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ToolUse(_Frozen):
    """A tool that the model wants used, with its input."""

    name: Annotated[str, Field(min_length=1)]
    input: dict[str, Any] = {}


class Fault(_Frozen):
    """A planned failure of the first ``times`` attempts, or of every attempt without ``times``."""

    kind: Annotated[str, Field(min_length=1)] = "overloaded_error"
    retryable: bool = True
    times: Annotated[int, Field(ge=1)] | None = None
    retry_after: Annotated[float, Field(ge=0)] | None = None
    reason: str | None = None


class Answer(_Frozen):
    """One turn's answer: text or json, and tools; before it, perhaps a planned failure.

    ``delay`` is in seconds, ``pace`` in words per second (None: all at once). ``repeat``, on a last answer, lets it answer every later turn too.
    """

    text: str | None = None
    json_: Any = Field(default=None, alias="json")
    tools: tuple[ToolUse, ...] = ()
    fail: Fault | None = None
    delay: Annotated[float, Field(ge=0)] = 0.0
    pace: Annotated[float, Field(gt=0)] | None = None
    stop_reason: str | None = None
    repeat: bool = False

    @property
    def spoken(self) -> str:
        """The text of the answer; ``json`` as compact JSON."""
        if self._has_json:
            return json.dumps(self.json_, ensure_ascii=False, separators=(",", ":"))
        return self.text or ""

    @property
    def _has_json(self) -> bool:
        return "json_" in self.model_fields_set

    @model_validator(mode="after")
    def _says_something(self) -> Answer:
        if self.text is not None and self._has_json:
            raise ValueError("has both text and json: keep one")
        silent = self.text is None and not self._has_json and not self.tools
        if silent and self.fail is None:
            raise ValueError("says nothing: give text, json, tools or fail")
        if silent and self.fail is not None and self.fail.times is not None:
            raise ValueError(
                f"says nothing after {self.fail.times} failures: give text, json or tools, or leave out times"
            )
        if not silent and self.fail is not None and self.fail.times is None:
            raise ValueError("fails every time, so what it says is never heard: give fail.times, or leave the rest out")
        return self


class Prices(_Frozen):
    """Dollars per million tokens."""

    input: _Price = Decimal(0)
    output: _Price = Decimal(0)


class _Answers(RootModel[tuple[Answer, ...]]):
    @model_validator(mode="after")
    def _only_the_last_repeats(self) -> _Answers:
        for turn, answer in enumerate(self.root[:-1], start=1):
            if answer.repeat:
                raise ValueError(f"answer {turn} repeats, so what follows is never heard: only the last may")
        return self


class _File(_Frozen):
    prices: Prices = Prices()
    roles: dict[str, dict[str, _Answers]]

    @model_validator(mode="before")
    @classmethod
    def _sorted_out(cls, given: Any) -> Any:
        """Put all but the prices under ``roles``; a list directly below a role is short for the task ""."""
        if not isinstance(given, dict):
            raise ValueError("must be a mapping of roles")
        roles = {role: {"": of} if isinstance(of, list) else of for role, of in given.items() if role != "prices"}
        return {"roles": roles, **({"prices": given["prices"]} if "prices" in given else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A validated script: answers by role, task and turn."""

    file: str
    roles: Mapping[str, Mapping[str, tuple[Answer, ...]]]
    prices: Prices


def load_script(path: Path) -> Script:
    """Read a script file.

    Raises:
        ScriptInvalid: The file cannot be read, is no YAML, or has wrong fields; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(path=(), file=str(path), reason=f"cannot be read: {error}")
        raise ScriptInvalid(file=str(path), problems=(problem,)) from error
    return parse_script(text, file=str(path))


def parse_script(text: str, *, file: str = "<script>") -> Script:
    """Read a script from its text; ``file`` is its name in errors.

    Raises:
        ScriptInvalid: It is no YAML, or has wrong fields; says where.
    """
    try:
        root = read_yaml(text, file=file)
    except WorkflowFileError as error:
        raise ScriptInvalid(file=file, problems=error.problems) from error
    try:
        read = _File.model_validate(_plain(root))
    except ValidationError as error:
        problems = [_problem(dict(detail), root, file) for detail in error.errors(include_url=False)]
        raise ScriptInvalid(file=file, problems=tuple(problems)) from error
    roles = {role: {task: answers.root for task, answers in tasks.items()} for role, tasks in read.roles.items()}
    return Script(file=file, roles=roles, prices=read.prices)


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(value) for key, value in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(value) for value in node.value]
    return node.value


def _problem(detail: dict[str, Any], root: Node, file: str) -> Problem:
    path = _written(detail["loc"], root)
    unknown = detail["type"] == "extra_forbidden"
    line, column = root.at(path, key=unknown)
    if unknown:
        reason, suggestion = "unknown field", did_you_mean(str(path[-1]), _fields_beside(path))
    else:
        reason, suggestion = detail["msg"].removeprefix("Value error, "), ""
    shown = None if isinstance(detail["input"], dict | list) else str(detail["input"])
    return Problem(path=path, value=shown, reason=reason, suggestion=suggestion, file=file, line=line, column=column)


def _written(place: tuple[str | int, ...], root: Node) -> tuple[str | int, ...]:
    """The place as the file has it: without the mapping of roles, and without a task that was left out."""
    path = place[1:] if place[:1] == ("roles",) else place
    role = root.child(path[0]) if path else None
    return (path[0], *path[2:]) if role is not None and isinstance(role.value, list) and path[1:2] == ("",) else path


def _fields_beside(path: tuple[str | int, ...]) -> tuple[str, ...]:
    model: type[BaseModel] = Answer
    if "tools" in path[:-1]:
        model = ToolUse
    elif "fail" in path[:-1]:
        model = Fault
    elif path[0] == "prices":
        model = Prices
    return tuple(field.alias or name for name, field in model.model_fields.items())
