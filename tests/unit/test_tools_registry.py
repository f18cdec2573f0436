"""The registry of tools, and functions that become tools or cannot."""

from __future__ import annotations

import pytest

from agents.tool import EffectClass, ToolContext, Tools
from agents.tools import builtin_tools, noop, read, tool
from hive_errors import ToolExists, ToolSignature, ToolUnknown


def test_a_name_is_given_once() -> None:
    """Two tools of one name would make what a model asks for ambiguous."""
    with pytest.raises(ToolExists, match="noop"):
        Tools(noop, noop)


def test_a_registry_is_a_collection_of_tools() -> None:
    """It can be asked, counted and gone through."""
    tools = Tools(noop, read)
    assert "read" in tools
    assert "write" not in tools
    assert len(tools) == 2
    assert [one.spec.name for one in tools] == ["noop", "read"]
    with pytest.raises(ToolUnknown, match="known are: noop, read"):
        tools.get("write")


def test_definitions_are_what_a_model_is_given() -> None:
    """Sorted by name, so that equal tools give equal requests; a choice of them, or all."""
    tools = builtin_tools()
    assert [one["name"] for one in tools.definitions(("write", "read"))] == ["read", "write"]
    assert [one["name"] for one in tools.definitions()] == sorted(one.spec.name for one in tools)
    schema = tools.definitions(("read",))[0]["input_schema"]
    assert list(schema["properties"]) == ["path", "offset", "limit"]
    assert schema["required"] == ["path"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["path"]["description"]


def test_the_context_is_no_part_of_the_input() -> None:
    """A parameter of that type is filled by the hive, whatever its name."""

    @tool(effect=EffectClass.PURE)
    def where(place: ToolContext, name: str) -> str:
        """Say where."""
        return f"{place.root}/{name}"

    assert list(where.spec.input_schema["properties"]) == ["name"]


def _variadic(*names: str) -> None:
    """Take any number."""


def _unannotated(name) -> None:  # type: ignore[no-untyped-def]
    """Say nothing of the type."""


def _positional(name: str, /) -> None:
    """Take no names."""


def _underscored(_name: str) -> None:
    """Hide the name."""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_variadic, "any number"),
        (_unannotated, "annotation"),
        (_positional, "positional-only"),
        (_underscored, "underscore"),
    ],
)
def test_a_signature_that_has_no_schema_is_refused(function: object, reason: str) -> None:
    """The error names function, parameter and what is wrong with it."""
    with pytest.raises(ToolSignature, match=reason):
        tool(function)  # type: ignore[call-overload]
