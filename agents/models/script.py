"""The file of a scripted model: its shape, and its errors with file, line and field.

This module owns reading and validating; what an answer means is ``scripted``'s.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from hive_errors import ScriptInvalid

__all__ = ["Answer", "Fault", "Prices", "Script", "ToolUse", "load_script", "parse_script"]

_SHOWN: Final = 80
_FIELDS: Final = ("text", "json", "tools", "fail", "delay", "repeat", "stop_reason", "name", "input", "kind", "times")
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

    ``delay`` is in seconds. ``repeat``, on a last answer, lets it answer every later turn too.
    """

    text: str | None = None
    json_: Any = Field(default=None, alias="json")
    tools: tuple[ToolUse, ...] = ()
    fail: Fault | None = None
    delay: Annotated[float, Field(ge=0)] = 0.0
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


class _File(RootModel[dict[str, dict[str, _Answers]]]):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A validated script: answers by role, task and turn."""

    file: str
    roles: Mapping[str, Mapping[str, tuple[Answer, ...]]]
    prices: Prices


def load_script(path: Path) -> Script:
    """Read a script file.

    Raises:
        ScriptInvalid: The file cannot be read, is no YAML, or has a wrong field; says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptInvalid(
            file=str(path),
            line=0,
            field="file",
            value=path.name,
            reason=str(error),
            suggestion="name a readable YAML file",
        ) from error
    return parse_script(text, file=str(path))


def parse_script(text: str, *, file: str = "<script>") -> Script:
    """Read a script from its text; ``file`` is its name in errors.

    Raises:
        ScriptInvalid: It is no YAML, or has a wrong field; says where.
    """
    tree = _parse_yaml(text, file)
    plain = _plain(tree)
    if not isinstance(plain, dict):
        raise ScriptInvalid(file=file, line=1, field="script", value=_shown(plain), reason="must be a mapping of roles")
    prices = _prices(plain.pop("prices", {}), tree, file)
    try:
        # A list directly below a role is short for the task "".
        read = _File.model_validate({role: {"": of} if isinstance(of, list) else of for role, of in plain.items()})
    except ValidationError as error:
        raise _located(error, tree, file) from error
    roles = {role: {task: answers.root for task, answers in tasks.items()} for role, tasks in read.root.items()}
    return Script(file=file, roles=roles, prices=prices)


def _prices(value: Any, tree: Any, file: str) -> Prices:
    try:
        return Prices.model_validate(value)
    except ValidationError as error:
        raise _located(error, tree, file, below="prices") from error


def _parse_yaml(text: str, file: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScriptInvalid(
            file=file, line=line, field="yaml", value=_line(text, line), reason=str(error.problem).strip()
        ) from error
    except YAMLError as error:
        raise ScriptInvalid(file=file, line=1, field="yaml", value=_line(text, 1), reason=str(error).strip()) from error


def _plain(node: Any) -> Any:
    """The JSON value of a YAML node; what JSON has no word for becomes its text, as it was written."""
    match node:
        case dict():
            return {str(key): _plain(value) for key, value in node.items()}
        case list():
            return [_plain(value) for value in node]
        case None | bool():
            return node
        case int():
            # A YAML boolean with an anchor is an int of its own class.
            return bool(node) if type(node).__name__ == "ScalarBoolean" else int(node)
        case float():
            return float(node)
        case _:
            return str(node)


def _located(error: ValidationError, tree: Any, file: str, *, below: str = "") -> ScriptInvalid:
    first = error.errors(include_url=False)[0]
    place = (below, *first["loc"]) if below else first["loc"]
    names = [str(part) for part in place]
    line, node = 1, tree
    for part in place:
        where = getattr(node, "lc", None)
        if isinstance(node, dict) and part in node and where is not None:
            line, node = where.key(part)[0] + 1, node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node) and where is not None:
            line, node = where.item(part)[0] + 1, node[part]
    reason = first["msg"].removeprefix("Value error, ")
    found = {"suggestion": _suggestion(names[-1])} if first["type"] == "extra_forbidden" else {}
    if found:
        reason = "no such field"
    return ScriptInvalid(
        file=file, line=line, field=".".join(names) or "script", value=_shown(first["input"]), reason=reason, **found
    )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELDS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"an answer has {', '.join(_FIELDS[:7])}"


def _line(text: str, line: int) -> str:
    lines = text.splitlines() or [""]
    return repr(lines[min(line, len(lines)) - 1].strip()[:_SHOWN])


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
