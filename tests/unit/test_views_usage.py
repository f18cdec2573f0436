"""Usage: every call once, with its cost, under what was asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from dashboard.cli.text import dollars
from dashboard.views import Cost, Meter, Use, usage_view
from tests.support.story import RUN, Story, a_drone, two_steps


def _uses(story: Story) -> list[Use]:
    meter = Meter()
    return [use for record in story.records if (use := meter.add(record)) is not None]


def test_every_call_is_counted_once_under_who_asked_for_it() -> None:
    """Model calls and tools by drone, the queen's own under nobody; attempts that failed beside them; all add up to the run's cost."""
    view = usage_view(_uses(a_drone()), ("drone",))
    rows = {key[0]: usage for key, usage in view.rows}
    assert {name: (usage.cost.calls, usage.tools, usage.failed) for name, usage in rows.items()} == {
        "planner": (1, 0, 0),
        "fix.1": (1, 1, 1),
        "fix.2": (1, 1, 1),
        "reviewer": (2, 0, 0),
        "": (0, 1, 0),
    }
    assert rows["fix.1"].seconds == 0.5 + 1 + 1
    assert view.total.cost == Cost(calls=5, input_tokens=134, output_tokens=36, dollars=Decimal("1.00"), unpriced=2)


def test_what_is_asked_decides_what_counts() -> None:
    """By model only model calls count, by tool only tools; otherwise both do."""
    uses = _uses(a_drone())
    assert usage_view(uses, ("model",)).total.tools == 0
    assert usage_view(uses, ("tool",)).total.cost.calls == 0
    both = usage_view(uses, ("run", "day"))
    assert [key for key, _ in both.rows] == [(RUN, "1970-01-01")]
    assert (both.total.cost.calls, both.total.tools) == (5, 3)
    assert [key[0] for key, _ in usage_view(uses, ("charge",)).rows] == [str(use.position) for use in uses]


def test_steps_of_a_workflow_are_used_too() -> None:
    """A command of a workflow is a tool, and takes the time from its start to its end."""
    (row,) = usage_view(_uses(two_steps()), ("tool",)).rows
    assert row[0] == ("run",)
    assert (row[1].tools, round(row[1].seconds, 3)) == (3, 3.3)


def test_a_price_that_nobody_knows_is_never_nothing() -> None:
    """Calls without a price are told apart, also attempts that used tokens; what is shown says so."""
    story = Story()
    call = story.tell("model.requested", 0, role="drone", turn=1, model="llama9")
    story.tell("model.started", 0, cause=call, attempt=1)
    used: dict[str, Any] = {"role": "drone", "task_id": "fix", "model": "llama9", "usage": {"input_tokens": 5}}
    story.tell("model.attempt_failed", 1, cause=call, attempt=1, reason="broke off", **used)
    story.tell("model.started", 1, cause=call, attempt=2)
    story.tell("model.responded", 2, cause=call, role="drone", task_id="fix", input_tokens=5, model="llama9")
    ((_, usage),) = usage_view(_uses(story), ("model",)).rows
    assert usage.cost == Cost(calls=1, input_tokens=10, unpriced=2)
    assert dollars(usage.cost) == "$?"
    assert dollars(Cost(unpriced=1)) == "$?"


def test_a_late_answer_is_paid_for() -> None:
    """An answer that came after its lease was lost costs what it costs, and is one that nobody used."""
    story = Story()
    call = story.tell("model.requested", 0, role="drone", turn=1, model="m")
    late: dict[str, Any] = {"role": "drone", "task_id": "fix", "model": "m", "output_tokens": 4, "cost": "0.5"}
    story.tell("model.superseded", 1, cause=call, attempt=1, result_topic="model.responded", result=late)
    (use,) = _uses(story)
    assert (use.cost.dollars, use.cost.calls, use.failed, use.model) == (Decimal("0.5"), 1, True, "m")


def test_what_never_began_was_not_used() -> None:
    """An intent that was cancelled before anybody took it is no use of anything."""
    story = Story()
    call = story.tell("model.requested", 0, role="drone", turn=1, model="m")
    story.tell("model.cancelled", 1, cause=call, reason="the run is cancelled")
    assert _uses(story) == []
