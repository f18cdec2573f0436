"""Plans as values: reading them, judging them, and what repairs what."""

from __future__ import annotations

from typing import Any

import pytest

from agents.plan import PlanFault, judge_plan, loads, repaired_by, repairs, steps_of


def step(name: str, *needs: str, when: str | None = None, prompt: bool = True) -> dict[str, Any]:
    """A step as the log keeps it."""
    spec: dict[str, Any] = {"id": name, "needs": list(needs), "prompt" if prompt else "run": "x"}
    return spec if when is None else {**spec, "when": when}


def test_json_is_read_with_or_without_a_fence() -> None:
    """Of several fenced blocks none is the answer."""
    assert loads('{"a": 1}') == loads('```json\n{"a": 1}\n```') == loads('So:\n```\n{"a": 1}\n```\nfine') == {"a": 1}
    with pytest.raises(PlanFault, match="not JSON"):
        loads("```\n1\n```\n```\n2\n```")


@pytest.mark.parametrize("text", ["", "NaN", "[Infinity]", '"\\ud800"', '"\\u0000"', "[" * 100_000, "1e999"])
def test_what_the_log_cannot_hold_is_refused(text: str) -> None:
    """A model may write anything; a brain must not trip over it."""
    with pytest.raises(PlanFault):
        loads(text)


def test_every_wrong_step_is_named() -> None:
    """With its place and its field."""
    with pytest.raises(PlanFault) as caught:
        steps_of([{"id": "a"}, {"id": "b", "run": "x", "retries": "many"}])
    assert [reason.partition(":")[0] for reason in caught.value.reasons] == ["steps[0]", "steps[1].retries"]


def test_a_plan_is_judged_as_a_whole() -> None:
    """Cycles, unknown needs and tools that no drone has."""
    assert judge_plan([step("a"), step("b", "a")], ()) == ()
    assert judge_plan([], ()) == ("the plan has no steps",)
    assert "cannot need itself" in judge_plan([step("a", "a")], ())[0]
    assert "the tools are read" in judge_plan([{**step("a"), "tools": ["saw"]}], ({"name": "read"},))[0]
    assert judge_plan([3], ())


@pytest.mark.parametrize(
    "when",
    [
        "failed('t')",
        "failed('t') or failed('u')",
        "not failed('t')",
        "failed('t') == true",
        "contains(failed('t'), 'x')",
    ],
)
def test_a_prompt_step_whose_condition_names_a_failure_repairs_it(when: str) -> None:
    """Wherever in the condition it stands."""
    assert repairs(step("r", "t", when=when)) == ("t",)


@pytest.mark.parametrize(
    "spec",
    [
        step("r", "t", when="failed('t')", prompt=False),
        step("r", "t", when="failed()"),
        step("r", "t", when="always()"),
        step("r", "t"),
        step("r", "t", when="failed('"),
        step("r", "u", when="failed('t')"),
    ],
)
def test_nothing_else_repairs(spec: dict[str, Any]) -> None:
    """Neither a command, nor a step that asks for any failure, nor one that does not need the step."""
    assert repairs(spec) == ()


def test_those_after_a_step_wait_for_its_repair_unless_it_waits_for_them() -> None:
    """No repair may make the steps wait for each other."""
    fix = step("fix", "test", when="failed('test')")
    assert repaired_by([step("test"), fix, step("build", "test")]) == {"build": ("fix",)}
    assert repaired_by([step("test"), {**fix, "needs": ["test", "build"]}, step("build", "test")]) == {}
    one = step("one", "a", "b", when="failed('a')")
    two = step("two", "a", "b", when="failed('b')")
    assert repaired_by([step("a"), step("b"), one, two]) == {"one": ("two",)}
