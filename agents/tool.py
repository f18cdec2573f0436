"""The port to tools: a spec, a call, an outcome; and the registry that calls them by name.

It owns the words and their guarantees. It must not know models, drones or the bus, nor
what any tool does. ``@tool`` (in ``agents.tools.function``) makes one from a function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from agents.policy import DEFAULT_POLICY, Policy
from hive_bus.effects import EffectClass
from hive_errors import HiveError, ToolExists, ToolUnknown

__all__ = [
    "OUTPUT_LIMIT",
    "EffectClass",
    "OnProgress",
    "Tool",
    "ToolContext",
    "ToolOutcome",
    "ToolSpec",
    "Tools",
    "storable",
    "storable_data",
]

OUTPUT_LIMIT: Final = 256 * 1024
"""Characters of a tool's output that are kept; the middle of a longer one is left out."""

_INT64: Final = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """What a model, a person and the queue know of a tool.

    Attributes:
        name: How it is called.
        description: What it does, for a model to choose by.
        input_schema: JSON Schema of its input, an object.
        effect: What may be done when a crash leaves it unknown whether it happened.
        writes: Whether it may change the workspace, so that a snapshot must follow.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    effect: EffectClass

    @property
    def writes(self) -> bool:
        return self.effect is not EffectClass.PURE


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome:
    """What a tool call came to.

    Attributes:
        output: Text for a model or a later step; holds nothing that the log refuses.
        is_error: Whether the call failed; ``output`` then says why, so that the caller can mend it.
        exit_code: A command's exit code, None for anything else.
        data: The same as JSON, where a tool has more to say than text.
        truncated: Whether a part of the output was left out.
    """

    output: str = ""
    is_error: bool = False
    exit_code: int | None = None
    data: Any = None
    truncated: bool = False


class OnProgress(Protocol):
    """Takes in how far a call is; see :meth:`ToolContext.progress`."""

    def __call__(self, text: str = "", *, fraction: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Where and under what limits a call runs.

    Attributes:
        root: The attempt's worktree, or the workspace: no tool that opens files leaves it.
        idempotency_key: The intent's event id, to give to the outside world.
        env: Variables that the step names, for commands.
        timeout: Seconds that the call may take; None leaves it to the policy.
        policy: Denied paths and inherited variables.
        on_output: What ``say`` calls, or None.
        on_progress: What ``progress`` calls, or None.
    """

    root: Path
    idempotency_key: str
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    policy: Policy = DEFAULT_POLICY
    on_output: Callable[[str | bytes], None] | None = None
    on_progress: OnProgress | None = None

    def say(self, piece: str | bytes) -> None:
        """Let those hear a piece of text who watch right now; bytes are a command's output. Any thread may."""
        if self.on_output is not None:
            self.on_output(piece)

    def progress(self, text: str = "", *, fraction: float | None = None) -> None:
        """Tell those who watch how far it is, in a few words, and as a ``fraction`` from 0 to 1 where that is known."""
        if self.on_progress is not None:
            self.on_progress(text, fraction=fraction)


class Tool(Protocol):
    """Something that a drone or a step can use.

    Guarantees:
        - ``spec`` never changes; its ``input_schema`` is JSON Schema of an object and JSON itself.
        - Bad input is an outcome with ``is_error`` that names field, value and reason, never an exception.
        - What goes wrong inside is an outcome with ``is_error`` and the error's type and message.
        - The outcome can be stored: no NUL, no lone surrogates, no numbers that JSON cannot hold, bounded length.
        - ``call`` does not block the event loop, and ends within ``ctx.timeout`` seconds and a grace period.
        - ``asyncio.CancelledError`` passes, after everything that the call started was ended.
    """

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, input: Mapping[str, Any], ctx: ToolContext) -> ToolOutcome:  # noqa: A002
        """Do it. ``input`` is what a model or a workflow gave, unchecked."""
        ...


class Tools:
    """The tools that a hive knows, by name."""

    def __init__(self, *tools: Tool) -> None:
        self._tools: dict[str, Tool] = {}
        for one in tools:
            self.register(one)

    def register(self, tool: Tool) -> None:
        """Add a tool. Raises :class:`ToolExists` where its name is taken."""
        if tool.spec.name in self._tools:
            raise ToolExists(name=tool.spec.name)
        self._tools[tool.spec.name] = tool

    def get(self, name: str) -> Tool:
        """The tool of that name. Raises :class:`ToolUnknown` with the names that are known."""
        if name not in self._tools:
            raise ToolUnknown(name=name, known=", ".join(sorted(self._tools)))
        return self._tools[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def definitions(self, names: tuple[str, ...] | None = None) -> tuple[dict[str, Any], ...]:
        """Messages-API definitions of these tools, or of all, sorted by name. Raises :class:`ToolUnknown`."""
        chosen = [self.get(name).spec for name in sorted(names if names is not None else self._tools)]
        return tuple(
            {"name": spec.name, "description": spec.description, "input_schema": dict(spec.input_schema)}
            for spec in chosen
        )

    async def call(self, name: str, input: Mapping[str, Any], ctx: ToolContext) -> ToolOutcome:  # noqa: A002
        """Call a tool by name; whatever goes wrong, an unknown name too, is an outcome with ``is_error``."""
        try:
            outcome = await self.get(name).call(input, ctx)
            return _bounded(outcome)
        except Exception as problem:  # noqa: BLE001  a tool is somebody else's code: its bugs are outcomes
            return failed(problem)


def failed(problem: BaseException) -> ToolOutcome:
    """The outcome of an exception: its type, its message, and what to do about it where the error knows."""
    if isinstance(problem, HiveError):
        advice = f"\ntry: {problem.advice}" if problem.advice else ""
        return ToolOutcome(output=storable(f"{problem.code}: {problem.message}{advice}"), is_error=True)
    return ToolOutcome(output=storable(f"{type(problem).__name__}: {problem}"[:OUTPUT_LIMIT]), is_error=True)


def storable(text: str) -> str:
    """Text as the log takes it: NUL becomes its picture, lone surrogates their escapes."""
    if "\0" in text:
        text = text.replace("\0", "\N{SYMBOL FOR NULL}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def storable_data(value: Any) -> Any:
    """A JSON copy of a value. Raises ``ValueError`` or ``TypeError`` that names what the log cannot hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(text) > OUTPUT_LIMIT:
        raise ValueError(f"data of {len(text)} characters is over the limit of {OUTPUT_LIMIT}")
    return _checked(json.loads(text), "data")


def _checked(value: Any, place: str) -> Any:
    match value:
        case dict():
            return {storable(key): _checked(item, f"{place}.{key}") for key, item in value.items()}
        case list():
            return [_checked(item, f"{place}[{index}]") for index, item in enumerate(value)]
        case str():
            return storable(value)
        case int() if value not in _INT64:
            raise ValueError(f"{place} is beyond 64 bits: {value}")
        case _:
            return value


def _bounded(outcome: ToolOutcome) -> ToolOutcome:
    output, data, truncated = storable(outcome.output), storable_data(outcome.data), outcome.truncated
    if len(output) > OUTPUT_LIMIT:
        half = OUTPUT_LIMIT // 2
        output = f"{output[:half]}\n[... {len(output) - 2 * half} characters left out ...]\n{output[-half:]}"
        truncated = True
    return ToolOutcome(
        output=output, is_error=outcome.is_error, exit_code=outcome.exit_code, data=data, truncated=truncated
    )
