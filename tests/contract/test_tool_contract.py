"""What every tool guarantees, whoever wrote it: the port's promises, one by one."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agents.tool import EffectClass, Tool, ToolContext, ToolOutcome, Tools, ToolSpec
from agents.tools import builtin_tools, tool
from hive_bus.codec import encode
from hive_bus.event import Event
from tests.support.patience import WITHIN


class Kept(Event, topic="tool_contract.kept"):
    """What becomes of an outcome: a body in the log."""

    output: str
    data: Any


class Sum(BaseModel):
    """A result that is a model."""

    total: int


@tool(effect=EffectClass.PURE)
def add(left: int, right: Annotated[int, Field(description="The other one.")] = 1) -> Sum:
    """Add two numbers."""
    return Sum(total=left + right)


@tool(effect=EffectClass.RECONCILABLE, name="slow_echo", description="Say it again.")
async def echo(text: str, ctx: ToolContext) -> ToolOutcome:
    """Another description, which the decorator's replaces."""
    await asyncio.sleep(0)
    return ToolOutcome(output=f"{text} in {ctx.root.name}")


class Foreign:
    """A tool that somebody wrote without any help of ours, and badly."""

    spec = ToolSpec(name="foreign", description="Breaks.", input_schema={"type": "object"}, effect=EffectClass.UNSAFE)

    async def call(self, input: Mapping[str, Any], ctx: ToolContext) -> ToolOutcome:  # noqa: A002
        """Break in the way that the input says."""
        match input.get("how"):
            case "raise":
                raise ValueError("broken \0 \ud800")
            case "nul":
                return ToolOutcome(output="a\0b\ud800", data={"k\0": ["\udfff", {"n": 1}]})
            case "flood":
                return ToolOutcome(output="x" * 10_000_000)
            case "nan":
                return ToolOutcome(data={"a": [float("nan")]})
            case "big":
                return ToolOutcome(data={"a": [1 << 70]})
            case "wide":
                return ToolOutcome(data="x" * 10_000_000)
            case _:
                return ToolOutcome(data=object())


def every_tool() -> list[Tool]:
    """Every tool that there is, and one of each way to make one."""
    return [*builtin_tools(), add, echo, Foreign()]


@pytest.fixture
def tools() -> Tools:
    """A registry of all of them."""
    return Tools(*every_tool())


@pytest.fixture
def ctx(tmp_path: Path) -> ToolContext:
    """A small workspace."""
    (tmp_path / "a.txt").write_text("hello\n")
    return ToolContext(root=tmp_path, idempotency_key="key", timeout=WITHIN)


@pytest.mark.parametrize("one", every_tool(), ids=lambda one: one.spec.name)
def test_a_spec_is_what_a_model_can_be_given(one: Tool) -> None:
    """Name, description and a schema of an object, all JSON and free of machine-made titles' noise."""
    spec = one.spec
    assert spec.name.isidentifier()
    assert spec.description
    assert spec.input_schema["type"] == "object"
    assert json.loads(json.dumps(spec.input_schema)) == spec.input_schema
    assert isinstance(spec.effect, EffectClass)


def test_the_built_in_tools_are_the_promised_ones() -> None:
    """Reading is pure; writing and commands are idempotent in a worktree of their own."""
    classes = {one.spec.name: one.spec.effect for one in builtin_tools()}
    pure = {name for name, effect in classes.items() if effect is EffectClass.PURE}
    assert pure == {"read", "list", "find", "grep", "noop"}
    assert {name for name, effect in classes.items() if effect is EffectClass.IDEMPOTENT} == {
        "write",
        "edit",
        "command",
    }
    assert {one.spec.name for one in builtin_tools() if one.spec.writes} == {"write", "edit", "command"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
field_names = st.sampled_from(
    ["path", "content", "old", "new", "pattern", "glob", "offset", "limit", "left", "text", "how"]
)


@given(
    name=st.sampled_from([one.spec.name for one in every_tool() if one.spec.name != "command"]),
    given_input=st.dictionaries(field_names | st.text(max_size=5), json_values, max_size=4),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_whatever_is_given_an_outcome_comes_back_that_the_log_takes(
    name: str,
    given_input: dict[str, Any],
    tools: Tools,
    ctx: ToolContext,
) -> None:
    """No input makes a call raise, and no outcome is refused by the codec."""
    outcome = asyncio.run(tools.call(name, given_input, ctx))
    assert isinstance(outcome, ToolOutcome)
    encode(Kept(output=outcome.output, data=outcome.data))


@pytest.mark.parametrize("one", [*builtin_tools(), add, echo], ids=lambda one: one.spec.name)
async def test_bad_input_names_field_value_and_reason(one: Tool, ctx: ToolContext) -> None:
    """A model that reads the outcome knows what to mend."""
    outcome = await one.call({"nonsense": 17}, ctx)
    assert outcome.is_error
    for word in ("nonsense", "17", "not permitted", "try:"):
        assert word in outcome.output
    for field in one.spec.input_schema.get("required", []):
        assert f"field '{field}' with value (missing)" in outcome.output


@pytest.mark.parametrize("how", ["raise", "nul", "flood", "nan", "big", "wide", "object"])
async def test_a_badly_written_tool_breaks_nothing(tools: Tools, ctx: ToolContext, how: str) -> None:
    """Exceptions become outcomes, text becomes storable, what cannot be stored is an error that says so."""
    outcome = await tools.call("foreign", {"how": how}, ctx)
    encode(Kept(output=outcome.output, data=outcome.data))
    assert len(outcome.output) < 300_000
    assert outcome.is_error is (how not in {"nul", "flood"})
    assert outcome.truncated is (how == "flood")
    if how == "raise":
        assert "ValueError: broken" in outcome.output
    if how == "nul":
        assert outcome.output == "a\N{SYMBOL FOR NULL}b\\ud800"
    if how == "big":
        assert "data.a[0]" in outcome.output


async def test_an_unknown_tool_is_an_outcome_with_the_known_ones(tools: Tools, ctx: ToolContext) -> None:
    """A model that makes a name up reads which there are."""
    outcome = await tools.call("rm", {}, ctx)
    assert outcome.is_error
    assert "'rm'" in outcome.output
    assert "edit, find, " in outcome.output


async def test_results_become_text_and_data(tools: Tools, ctx: ToolContext) -> None:
    """A model is data and its JSON; an outcome stays one; nothing is nothing."""
    assert await tools.call("add", {"left": 2}, ctx) == ToolOutcome(output='{"total": 3}', data={"total": 3})
    assert (await tools.call("slow_echo", {"text": "x"}, ctx)).output == f"x in {ctx.root.name}"
    assert await tools.call("noop", {}, ctx) == ToolOutcome()


async def test_a_plain_function_does_not_hold_the_loop(ctx: ToolContext) -> None:
    """It runs in a thread: the loop goes on while it waits for the loop."""
    gate = threading.Event()

    @tool(effect=EffectClass.PURE)
    def waits() -> str:
        """Wait for the loop."""
        return "seen" if gate.wait(WITHIN) else "blocked"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(waits.call({}, ctx))
        await asyncio.sleep(0)
        gate.set()
    assert task.result().output == "seen"


async def test_a_call_ends_within_its_time(tmp_path: Path) -> None:
    """A tool that never ends is ended, and the outcome says so; a tool's own timeout is just its error."""

    @tool(effect=EffectClass.PURE)
    async def endless() -> None:
        """Wait for nothing."""
        await asyncio.Event().wait()

    @tool(effect=EffectClass.PURE)
    async def impatient() -> None:
        """Give up by itself."""
        raise TimeoutError("the other side is slow")

    ctx = ToolContext(root=tmp_path, idempotency_key="key", timeout=0.05)
    began = time.monotonic()
    outcome = await endless.call({}, ctx)
    assert outcome.is_error
    assert "longer than 0.05 s" in outcome.output
    assert time.monotonic() - began < WITHIN
    assert "the other side is slow" in (await impatient.call({}, ctx)).output


async def test_cancellation_passes(tools: Tools, ctx: ToolContext) -> None:
    """A cancelled call is no outcome: whoever cancelled it is told."""
    started = asyncio.Event()

    @tool
    async def waits() -> None:
        """Wait to be cancelled."""
        started.set()
        await asyncio.Event().wait()

    tools.register(waits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(tools.call("waits", {}, ctx))
        await started.wait()
        task.cancel()
    assert task.cancelled()
    assert waits.spec.effect is EffectClass.UNSAFE, "without a word, a tool is unsafe"
