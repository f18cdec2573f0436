"""The terms of a branch: how the words of forks add up, and what is left of a timer."""

from __future__ import annotations

from agents.run_state import OpenIntent
from agents.terms import NO_BRANCH
from hive_bus.effects import EffectClass
from hive_bus.events import WorkflowForked


def test_a_later_word_comes_first() -> None:
    """What a fork of a fork says of all roles ends what was said of one; of a role it changes that alone."""
    first = NO_BRANCH.under(WorkflowForked(models={"": "a", "drone": "b"}, review=False))
    assert (first.model("drone", "x"), first.model("planner", "x"), first.prompt("drone", "y")) == ("b", "a", "y")
    second = first.under(WorkflowForked(models={"planner": "c"}))
    assert (second.model("drone", "x"), second.model("planner", "x"), second.model("reviewer", "x")) == ("b", "c", "a")
    third = second.under(WorkflowForked(models={"": "d"}))
    assert (third.model("drone", "x"), third.review) == ("d", False)


def test_permission_for_what_is_unsafe_is_not_inherited() -> None:
    """Each fork allows it anew; outside a branch nothing is blocked; a tool that says nothing counts as unsafe."""
    allowed = NO_BRANCH.under(WorkflowForked(allow=("unsafe",)))
    assert not NO_BRANCH.blocks(EffectClass.UNSAFE)
    assert not allowed.blocks(EffectClass.UNSAFE)
    inside = allowed.under(WorkflowForked())
    assert [inside.blocks(effect) for effect in ("unsafe", None, "idempotent", "pure")] == [True, True, False, False]
    assert inside.marked(({"name": "a"}, {"name": "b", "effect": "pure"})) == (
        {"name": "a", "blocked": True},
        {"name": "b", "effect": "pure"},
    )


def test_a_timer_keeps_the_time_it_had_left() -> None:
    """Counted up to the moment that was forked; what was over is over, and time that ran backwards takes none away."""
    timer = OpenIntent(kind="timer", run="r", delay=60.0, at=1_000_000)
    assert [timer.left(at) for at in (1_000_000, 41_000_000, 100_000_000, 0)] == [60.0, 20.0, 0.0, 60.0]
