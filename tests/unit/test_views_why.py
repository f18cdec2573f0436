"""Causes walked back to the goal."""

from __future__ import annotations

from dashboard.views import why
from tests.support.story import RUN, a_drone, two_steps


def test_the_causes_of_an_event_lead_to_the_goal() -> None:
    """A call and its end are one step, in log order; what says nothing of its own is left out."""
    story = a_drone()
    last = next(record for record in reversed(story.records) if record.topic == "task.review_completed")
    view = why(RUN, story.records, last)
    assert view.steps[0].what == "asked for: Mend it"
    assert view.steps[-1].what == "fix approved: look again"
    said = [step.what for step in view.steps]
    assert [step for step in said if step.startswith("drone fix") and "turn 1" in step]
    assert "command ./check: [stderr]" in said
    assert [step.position for step in view.steps] == sorted(step.position for step in view.steps)
    assert sum(step.topic.endswith(".requested") and step.topic.startswith("model") for step in view.steps) == 0


def test_a_charge_says_what_it_was_for() -> None:
    """Tokens and dollars, or that nobody knows the price."""
    records = a_drone().records
    priced, unpriced = (
        next(
            record
            for record in records
            if record.topic == "model.responded" and (record.data.get("cost") is None) is none
        )
        for none in (False, True)
    )
    assert why(RUN, records, priced).what == "$0.5 for 100 tokens in and 20 out"
    assert why(RUN, records, unpriced).what == "a price that nobody knows for 10 tokens in and 5 out"


def test_a_step_and_a_person_are_causes_too() -> None:
    """Commands, questions and answers, with who gave them."""
    records = two_steps().records
    view = why(RUN, records, records[-1])
    said = [step.what for step in view.steps]
    assert said[-2:] == ["ship: $ ./ship: shipped", "workflow completed: shipped"]
    assert view.as_dict()["steps"][0]["event_id"] == "event-1"
