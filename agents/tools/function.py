"""Tools made from plain functions: ``@tool(effect=...)``.

It owns how a signature becomes a JSON Schema, and how an input, a result and an exception
become an outcome. It must not know what any function does.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from agents.tool import ToolContext, ToolOutcome, ToolSpec, failed, storable, storable_data
from hive_bus.effects import EffectClass
from hive_errors import ToolInputInvalid, ToolSignature

__all__ = ["GRACE", "FunctionTool", "tool"]

GRACE: Final = 5.0
"""Seconds that a function which sees the context, and so its limit, has to end by itself and say how far it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTool:
    """A function as a tool; implements :class:`agents.tool.Tool`. ``function`` is the original, to call directly."""

    spec: ToolSpec
    function: Callable[..., Any]
    model: type[BaseModel]
    context_parameter: str | None

    async def call(self, input: Mapping[str, Any], ctx: ToolContext) -> ToolOutcome:  # noqa: A002
        """Check the input, run the function, and make an outcome of whatever comes."""
        try:
            checked = self.model.model_validate(dict(input))
        except ValidationError as problem:
            return _invalid(self.spec, problem)
        except (TypeError, ValueError) as problem:
            return failed(problem)
        arguments: dict[str, Any] = {name: getattr(checked, name) for name in self.model.model_fields}
        if self.context_parameter is not None:
            arguments[self.context_parameter] = ctx
        seconds = ctx.timeout
        if seconds is not None and self.context_parameter is not None:
            seconds += GRACE
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                result = await self._run(arguments)
            return _outcome(result)
        except TimeoutError as problem:
            if not limit.expired():
                return failed(problem)
            return ToolOutcome(output=f"tool {self.spec.name!r} took longer than {seconds} s", is_error=True)
        except Exception as problem:  # noqa: BLE001  a tool's bug is an outcome, not the hive's end
            return failed(problem)

    async def _run(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await cast(Awaitable[Any], self.function(**arguments))
        return await asyncio.to_thread(self.function, **arguments)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...


@overload
def tool(
    *, effect: EffectClass = ..., name: str | None = ..., description: str | None = ...
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: EffectClass = EffectClass.UNSAFE,
    name: str | None = None,
    description: str | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a tool of a function; its parameters are the input, its docstring the description.

    A parameter annotated :class:`ToolContext` gets the context and is no part of the input. A plain
    function runs in a thread (which a timeout leaves running: nothing can end a thread), a coroutine
    function on the loop. A string is the output; a :class:`ToolOutcome` is taken as it is; anything
    else must be JSON and becomes ``data`` and, written out, the output.

    Args:
        function: The function, where the decorator is used without arguments.
        effect: What may be done after a crash; without a word it is ``unsafe``.
        name: How it is called; without it, the function's name.
        description: What it does; without it, the docstring.

    Raises:
        ToolSignature: A parameter is variadic, positional-only, without annotation, or begins with an underscore.
    """

    def make(target: Callable[..., Any]) -> FunctionTool:
        model, context_parameter = _input_model(target)
        schema = model.model_json_schema()
        schema.pop("title", None)
        schema.pop("description", None)
        spec = ToolSpec(
            name=name or target.__name__,
            description=description or inspect.getdoc(target) or "",
            input_schema=schema,
            effect=effect,
        )
        return FunctionTool(spec=spec, function=target, model=model, context_parameter=context_parameter)

    return make if function is None else make(function)


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())


def _input_model(function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    hints = get_type_hints(function, include_extras=True)
    context_parameter: str | None = None
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name)
        if annotation is ToolContext:
            context_parameter = parameter.name
            continue
        if reason := _unfit(parameter, annotation):
            raise ToolSignature(function=function.__name__, parameter=parameter.name, reason=reason)
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    return create_model(function.__name__, __base__=_Input, **fields), context_parameter


def _unfit(parameter: inspect.Parameter, annotation: Any) -> str:
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        return "takes any number of arguments"
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return "is positional-only"
    if annotation is None:
        return "has no type annotation"
    return "begins with an underscore" if parameter.name.startswith("_") else ""


def _invalid(spec: ToolSpec, problem: ValidationError) -> ToolOutcome:
    lines = []
    for error in problem.errors(include_url=False):
        field = ".".join(map(str, error["loc"])) or "(input)"
        value = "(missing)" if error["type"] == "missing" else repr(error["input"])[:200]
        invalid = ToolInputInvalid(field=field, value=value, reason=error["msg"])
        lines.append(f"{invalid.code}: {invalid.message}")
    known = ", ".join(spec.input_schema.get("properties", {})) or "none"
    return ToolOutcome(
        output=storable("\n".join([*lines, f"try: call {spec.name!r} with the fields: {known}"])), is_error=True
    )


def _outcome(result: Any) -> ToolOutcome:
    match result:
        case ToolOutcome():
            return result
        case None:
            return ToolOutcome()
        case str():
            return ToolOutcome(output=storable(result))
        case _:
            value = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
            data = storable_data(value)
            return ToolOutcome(output=json.dumps(data, ensure_ascii=False), data=data)
