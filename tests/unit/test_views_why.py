"""Causes walked back to the goal."""

from __future__ import annotations

from typing import Any

from dashboard.views import why
from tests.support.story import RUN, Story, a_drone, two_steps


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


def test_a_branch_goes_on_from_what_its_own_drone_had_heard_last() -> None:
    """Not from whatever was said last in the parent before it was forked."""
    story = Story()
    story.tell("workflow.requested", 0, goal="Mend it")
    for task in ("fix", "doc"):
        drone: dict[str, Any] = {"stream": f"drone/{task}.1"}
        story.tell("drone.buzzed", 1, cause=story.records[0], drone_id=f"{task}.1", prompt=f"do {task}", **drone)
        asked = story.tell("model.requested", 1, role="drone", turn=1, task_id=task, **drone)
        message = {"content": [{"type": "text", "text": f"I look at {task}"}]}
        story.tell("model.responded", 2, cause=asked, message=message, **drone)
    forked = story.tell("workflow.forked", 3, parent=RUN, position=len(story.records))
    story.tell("drone.resumed", 3, cause=forked, stream="drone/fix.1", drone_id="fix.1")
    call = story.tell("tool.requested", 3, stream="drone/fix.1", tool="command", input={"command": "ls"})
    last = story.tell("tool.returned", 4, cause=call, stream="drone/fix.1", tool="command", output="a")
    said = [step.what for step in why(RUN, story.records, last).steps]
    assert said[:4] == [
        "asked for: Mend it",
        "drone fix.1 is given: do fix",
        "drone fix.1, turn 1: I look at fix",
        f"branch of {RUN} at 7",
    ]
    assert not [one for one in said if "doc" in one]
