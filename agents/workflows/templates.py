"""Placeholders: ``{{ steps.test.output }}`` and its like, put into the fields of a step.

Reads them, says at load what can never work, and renders them inside the queen:
no clock, no files, no environment. Values put into ``run`` are quoted for the
shell; everywhere else they stand as they are. ``{{{{`` stands for ``{{``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from agents.workflows.references import Reference, ReferenceFault, Scope, StepView, look_up, parse_reference
from agents.workflows.shell_positions import ShellPosition
from hive_errors import TemplateError

# Linux refuses a single argument (and `sh -c` gets the command as one) above 128 KiB.
LONGEST_COMMAND = 128 * 1024 - 1
_BRACES = re.compile(r"\{\{(\{\{)?")
_END = re.compile(r"\s*\}\}")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One value to be put in; ``text`` is what the author wrote, with its braces."""

    reference: Reference
    text: str
    column: int


Part: TypeAlias = str | Placeholder


@dataclass(frozen=True, slots=True)
class Template:
    """A text that has been read: plain parts and placeholders in turn."""

    parts: tuple[Part, ...]

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        """The values this text needs."""
        return tuple(part for part in self.parts if isinstance(part, Placeholder))


@lru_cache(maxsize=4096)
def parse_template(text: str) -> Template:
    """Read the placeholders of a text.

    Raises:
        TemplateError: a placeholder is not closed or names nothing that exists.
    """
    parts: list[Part] = []
    plain = ""
    position = 0
    while match := _BRACES.search(text, position):
        plain += text[position : match.start()]
        if match[1]:
            plain += "{{"
            position = match.end()
            continue
        if plain:
            parts.append(plain)
            plain = ""
        placeholder, position = _read(text, match.start())
        parts.append(placeholder)
    plain += text[position:]
    return Template(tuple([*parts, plain] if plain else parts))


def _read(text: str, start: int) -> tuple[Placeholder, int]:
    inside = start + 2
    while inside < len(text) and text[inside].isspace():
        inside += 1
    try:
        reference, end = parse_reference(text, inside)
    except ReferenceFault as fault:
        suggestion = fault.suggestion or "write {{{{ for two braces"
        if not text[inside : inside + 1].isalnum():
            suggestion = "write {{ steps.ID.output }}, or {{{{ for two braces"
        _fail(_excerpt(text, start), fault.reason, start, suggestion)
    closing = _END.match(text, end)
    if closing is None:
        _fail(
            _excerpt(text, start), "is not closed by }}", start, "write {{ steps.ID.output }}, or {{{{ for two braces"
        )
    return Placeholder(reference, text[start : closing.end()], start + 1), closing.end()


def _excerpt(text: str, start: int) -> str:
    end = text.find("}}", start)
    return text[start : end + 2] if 0 <= end - start <= 60 else text[start : start + 30]


def _fail(placeholder: str, reason: str, start: int, suggestion: str = "") -> NoReturn:
    raise TemplateError(placeholder=placeholder, reason=reason, column=start + 1, suggestion=suggestion)


@lru_cache(maxsize=4096)
def parse_command(text: str) -> Template:
    """Read the placeholders of a shell command, and refuse those that no quoting can make safe.

    Raises:
        TemplateError: as ``parse_template``, or a placeholder stands where the shell reads no words.
    """
    template = parse_template(text)
    position = ShellPosition()
    for part in template.parts:
        if isinstance(part, str):
            position.feed(part)
            continue
        refusal = position.refusal()
        if refusal is not None:
            reason, suggestion = refusal
            _fail(part.text, reason, part.column - 1, suggestion)
        position.value()
    return template


def render_text(text: str, scope: Scope) -> str:
    """Put the values in as they are.

    Raises:
        TemplateError: a value does not exist.
    """
    return "".join(
        part if isinstance(part, str) else _written(_found(part, scope)) for part in parse_template(text).parts
    )


def render_command(text: str, scope: Scope) -> str:
    """Put the values in, each as one word of the shell.

    Raises:
        TemplateError: a value does not exist or cannot stand in a command, or the command becomes too long.
    """
    template = parse_command(text)
    command = "".join(
        part if isinstance(part, str) else _quoted(part, _written(_found(part, scope))) for part in template.parts
    )
    if template.placeholders and len(command.encode("utf-8", "surrogatepass")) > LONGEST_COMMAND:
        _fail(
            template.placeholders[0].text,
            f"makes the command longer than {LONGEST_COMMAND} bytes",
            0,
            "let the earlier step write a file and read it here",
        )
    return command


def render_value(value: Any, scope: Scope) -> Any:
    """Put the values into every text of a JSON value; a text that is one placeholder becomes the value itself.

    Raises:
        TemplateError: a value does not exist.
    """
    match value:
        case str():
            parts = parse_template(value).parts
            if len(parts) == 1 and isinstance(parts[0], Placeholder):
                return _found(parts[0], scope)
            return render_text(value, scope)
        case list() | tuple():
            return [render_value(item, scope) for item in value]
        case dict():
            return {key: render_value(item, scope) for key, item in value.items()}
        case _:
            return value


def quote(value: str) -> str:
    """Quote a value as one word for a POSIX shell, always: a bare ``2`` or ``if`` would mean something."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def _quoted(part: Placeholder, value: str) -> str:
    if "\0" in value:
        _fail(part.text, "holds a NUL character, which no command can carry", part.column - 1)
    return quote(value)


def _found(part: Placeholder, scope: Scope) -> Any:
    try:
        value = look_up(part.reference, scope)
    except ReferenceFault as fault:
        _fail(part.text, fault.reason, part.column - 1, fault.suggestion)
    if value is None:
        _fail(part.text, _absence(part.reference, scope), part.column - 1)
    return value


def _absence(reference: Reference, scope: Scope) -> str:
    if reference.root == "run":
        return f"the run has no {reference.name}"
    view = scope.steps[reference.name]
    if view.status not in ("completed", "failed"):
        return f"step {reference.name!r} is {view.status} and left nothing"
    if reference.field == "json":
        return f"the JSON of step {reference.name!r} has null or nothing there"
    return f"step {reference.name!r} ran no command and has no exit code"


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


__all__ = [
    "LONGEST_COMMAND",
    "Placeholder",
    "Scope",
    "StepView",
    "Template",
    "parse_command",
    "parse_template",
    "quote",
    "render_command",
    "render_text",
    "render_value",
]
