"""Workflows as values: they come back from the log as they went in, and editors know their schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.workflows.file import parse_workflow
from agents.workflows.schema import schema_text, workflow_schema
from agents.workflows.workflow import Defaults, Step, Workflow, WorkflowFile, parse_duration
from hive_errors import WorkflowFileError

ROOT = Path(__file__).parents[2]

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip)
_ID = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
_ENV = st.dictionaries(
    st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z"), st.text(st.characters(codec="ascii", min_codepoint=32))
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_KINDS = st.one_of(
    st.fixed_dictionaries({"run": _TEXT}),
    st.fixed_dictionaries({"prompt": _TEXT}, optional={"model": _TEXT, "tools": st.lists(_TEXT, max_size=3)}),
    st.fixed_dictionaries({"tool": _TEXT}, optional={"with": st.dictionaries(_TEXT, _JSON, max_size=3)}),
)
_DURATIONS = st.sampled_from(["500ms", "10s", "1h30m", 5, 0.25, "90"])
_COMMON = st.fixed_dictionaries(
    {"id": _ID},
    optional={
        "name": _TEXT,
        "needs": st.lists(_ID, max_size=3),
        "when": _TEXT,
        "retries": st.integers(0, 100),
        "backoff": _DURATIONS,
        "timeout": _DURATIONS,
        "capability": _TEXT,
        "priority": st.integers(1, 9) | st.sampled_from(["critical", "high", "normal", "low", "background"]),
        "env": _ENV,
        "review": st.booleans() | st.integers(0, 9),
        "approval": st.booleans() | _TEXT,
        "effect": st.sampled_from(["pure", "idempotent", "reconcilable", "unsafe"]),
    },
)
_STEPS = st.tuples(_COMMON, _KINDS).map(lambda both: {**both[0], **both[1]})
_DEFAULTS = st.fixed_dictionaries(
    {},
    optional={
        "timeout": _DURATIONS,
        "retries": st.integers(0, 9),
        "env": _ENV,
        "review": st.booleans(),
        "model": _TEXT,
    },
)
_FILES = st.fixed_dictionaries(
    {"name": _TEXT, "steps": st.lists(_STEPS, min_size=1, max_size=4)},
    optional={"goal": _TEXT, "max_parallel": st.integers(1, 100), "defaults": _DEFAULTS},
)


@given(_FILES)
def test_a_workflow_comes_back_as_it_went_in(written: dict[str, Any]) -> None:
    """Through JSON, whole or without what is unset, it is the same value; writing it again gives the same bytes."""
    workflow = WorkflowFile.model_validate(written).normalised()
    for form in (
        workflow.model_dump(mode="json"),
        workflow.model_dump(mode="json", exclude_none=True),
        workflow.model_dump(mode="json", exclude_defaults=True),
    ):
        text = json.dumps(form, allow_nan=False)
        again = Workflow.model_validate(json.loads(text))
        assert again == workflow
        assert again.model_dump_json() == workflow.model_dump_json()
    assert Workflow.model_validate_json(workflow.model_dump_json()) == workflow


@given(_STEPS, _DEFAULTS)
def test_defaults_applied_twice_change_nothing(written: dict[str, Any], defaults: dict[str, Any]) -> None:
    """A step that has its defaults is as it is, also after a way through the log."""
    given_defaults = Defaults.model_validate(defaults)
    once = given_defaults.applied_to(Step.model_validate(written))
    assert given_defaults.applied_to(once) == once
    assert given_defaults.applied_to(Step.model_validate(once.model_dump(mode="json"))) == once


def test_values_are_frozen() -> None:
    """Nobody changes a workflow that others hold."""
    workflow = parse_workflow("name: x\nsteps: [{id: a, run: b}]")
    with pytest.raises(ValidationError):
        workflow.steps[0].run = "c"
    assert (workflow.steps[0].title, Step(id="a", name="Build", run="x").title) == ("a", "Build")


@given(
    st.one_of(
        st.text(max_size=12), st.text(st.sampled_from("0123456789.smhd "), max_size=12), st.floats(), st.booleans()
    )
)
def test_any_duration_is_read_or_refused(value: object) -> None:
    """A duration is a number of seconds between nothing and thirty days, or a ValueError."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds <= 30 * 86_400


def test_the_schema_on_disk_is_the_schema_of_the_code() -> None:
    """`python -m agents.workflows.schema > docs/workflow.schema.json` has been run since the fields last changed."""
    assert (ROOT / "docs" / "workflow.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_knows_every_field_and_no_other() -> None:
    """What the models have, editors offer, each with a sentence; unknown fields are marked."""
    schema = workflow_schema()
    for model, part in (
        (Step, schema["$defs"]["Step"]),
        (Defaults, schema["$defs"]["Defaults"]),
        (WorkflowFile, schema),
    ):
        assert set(part["properties"]) == {field.alias or name for name, field in model.model_fields.items()}
        assert all(field.get("description") for field in part["properties"].values())
        assert part["additionalProperties"] is False


def test_every_field_is_documented() -> None:
    """The tables of docs/workflows.md have a row for each field of a workflow, a step and the defaults."""
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    fields = {field.alias or name for model in (WorkflowFile, Step) for name, field in model.model_fields.items()}
    assert sorted(name for name in fields if f"\n| `{name}` |" not in page) == []


def test_the_page_shows_what_happens() -> None:
    """Every workflow in docs/workflows.md is read as it stands there, and the bad one gives exactly the lines below it."""
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(yaml|yaml bad|text)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    good = [text for kind, text in blocks if kind == "yaml"]
    [bad] = [text for kind, text in blocks if kind == "yaml bad"]
    [shown] = [text for kind, text in blocks if kind == "text"]
    assert len([parse_workflow(text) for text in good]) >= 2
    with pytest.raises(WorkflowFileError) as caught:
        parse_workflow(bad, file="ci.yaml")
    assert f"{caught.value}\n" == shown
