"""The trace: what waited, what worked, what a person was waited for, and the critical path."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dashboard.views import Segment, Span, TraceView, trace_view
from dashboard.views.span import shares
from tests.support.story import SECOND, Story, a_drone, two_steps


def _trace(story: Story) -> TraceView:
    view = trace_view(story.records)
    assert view is not None
    return view


def _named(view: TraceView, label: str) -> Span:
    return next(span for span in view.root.walk() if span.label == label)


def test_waits_and_work_of_a_step() -> None:
    """A step waits from the moment it could run until somebody takes it, and works until it returns."""
    build = _named(_trace(two_steps()), "build")
    assert (build.waited, build.worked, build.asked) == (1.0, 2.0, 0.0)
    assert [child.label for child in build.children] == ["make"]


def test_a_person_is_waited_for_apart() -> None:
    """Time in which only a person could move a task is neither work nor plain waiting."""
    ship = _named(_trace(two_steps()), "ship")
    assert (ship.waited, ship.worked, ship.asked) == (0.0, 1.0, 4.0)


def test_a_run_divides_its_whole_time() -> None:
    """Of 8 seconds 3.3 were worked on, 4 waited for a person, the rest waited: nothing is counted twice."""
    root = _trace(two_steps()).root
    assert (round(root.worked, 6), root.asked, round(root.waited, 6)) == (3.3, 4.0, 0.7)
    assert root.duration == 8.0


def test_the_critical_path_is_the_chain_of_causes() -> None:
    """The end had to wait for the plan, build and ship; lint ran beside them and made nobody wait."""
    view = _trace(two_steps())
    assert [span.label for span in view.critical] == ["plan", "build", "ship"]
    assert not _named(view, "lint: Look at style").critical


def test_a_drone_is_a_tree_of_tries_calls_tools_and_reviews() -> None:
    """Task, tries, their model calls and tools, and each review with its own call, in the order they began."""
    task = _named(_trace(a_drone()), "fix: Mend")
    assert [(child.kind, child.label, child.status) for child in task.children] == [
        ("try", "try 1", "completed"),
        ("review", "review 1", "changes requested"),
        ("try", "try 2", "completed"),
        ("review", "review 2", "approved"),
        ("tool", "merge into the run's branch", "completed"),
    ]
    assert [(child.kind, child.label) for child in task.children[0].children] == [
        ("model", "model, turn 1"),
        ("tool", "command ./check"),
    ]
    assert [child.kind for child in task.children[1].children] == ["model"]
    assert task.attempts == 2


def test_attempts_and_backoff_of_a_call() -> None:
    """Between a failed attempt and the next one a call waits; only attempts are work."""
    call = _named(_trace(a_drone()), "try 1").children[0]
    assert (call.attempts, call.worked, call.waited) == (2, 1.5, 1.5)
    assert call.status == "completed"


def test_a_failed_tool_says_its_exit_code() -> None:
    """The note of a command that failed is its exit code, not the first word of its output."""
    tool = _named(_trace(a_drone()), "command ./check")
    assert (tool.status, tool.note) == ("failed", "exit code 1")


def test_cost_sums_up_the_tree() -> None:
    """A span's cost is that of everything below it."""
    view = _trace(a_drone())
    assert view.root.cost == view.run.cost
    assert _named(view, "plan").cost.calls == 1
    assert _named(view, "review 1").cost.calls == 1


def test_an_open_run_counts_up_to_now() -> None:
    """What has not ended is counted up to the given time, and has no end."""
    story = two_steps()
    taken = next(index for index, record in enumerate(story.records) if record.topic == "approval.requested")
    view = trace_view(story.records[: taken + 1], now=13 * SECOND)
    assert view is not None
    assert (view.root.end, view.root.duration, view.root.asked) == (None, 13.0, 10.0)
    assert _named(view, "Ship it?").status == "waiting"


def test_strangers_in_a_run_are_shown_where_they_were_caused() -> None:
    """An event of a user's own is a node below its cause, and no reason to fail."""
    story = Story()
    story.tell("workflow.requested", 0, name="ci")
    placed = story.tell("order.placed", 1, order=7)
    story.tell("order.packed", 2, cause=placed)
    root = _trace(story).root
    assert [(span.kind, span.label) for span in root.walk()] == [
        ("run", "ci"),
        ("event", "order.placed"),
        ("event", "order.packed"),
    ]


def test_every_prefix_of_a_story_can_be_drawn() -> None:
    """A trace can be asked for at any moment: durations are never negative, ends never lie before begins."""
    for story in (two_steps(), a_drone()):
        for length in range(1, len(story.records) + 1):
            view = trace_view(story.records[:length])
            assert view is not None
            for span in view.root.walk():
                assert min(span.waited, span.worked, span.asked) >= 0
                assert span.end is None or span.end >= span.begin


def test_a_trace_is_plain_json() -> None:
    """Programs get the tree with numbers, and the names of the critical path."""
    plain = _trace(two_steps()).as_dict()
    assert plain["critical_path"] == ["plan", "build", "ship"]
    assert plain["root"]["children"][1]["worked"] == 2.0


_SEGMENTS = st.lists(
    st.builds(
        lambda phase, begin, length: Segment(phase, begin, begin + length),
        st.sampled_from(["queued", "working", "person"]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=12,
)


@given(_SEGMENTS)
def test_shares_of_time_add_up(segments: list[Segment]) -> None:
    """Work, people and waiting together are the whole, each moment counted once, as a count by microseconds says."""
    part = shares(segments, 0, 100)
    working = {moment for piece in segments if piece.phase == "working" for moment in range(piece.begin, piece.end)}
    people = {moment for piece in segments if piece.phase == "person" for moment in range(piece.begin, piece.end)}
    assert round(part.worked * SECOND) == len(working)
    assert round(part.asked * SECOND) == len(people - working)
    assert round(part.waited * SECOND) == 100 - len(working | people)


def test_stories_have_increasing_times() -> None:
    """The stories of these tests are possible ones."""
    for story in (two_steps(), a_drone()):
        assert all(one.recorded_at <= other.recorded_at for one, other in itertools.pairwise(story.records))
