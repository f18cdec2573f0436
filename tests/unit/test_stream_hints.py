"""What a process knows of streams' versions: exact while nobody else appends, silent when it cannot know."""

from __future__ import annotations

from itertools import permutations

import pytest

from hive_core_db.postgres.hints import Hints


def appended(hints: Hints, first: int, **versions: int) -> None:
    """One append came and went: an event for each stream."""
    hints.arrive(hints.depart(len(versions), versions), first, versions)


def test_nothing_is_known_at_first() -> None:
    """Without an append of its own a process knows neither a version nor where the log stands."""
    hints = Hints()
    assert (hints.of(["s"]), hints.holds_at(["s"])) == ([None], None)


def test_what_was_appended_is_known() -> None:
    """Versions hold as of the last own append."""
    hints = Hints()
    appended(hints, 1, s=1, t=1)
    appended(hints, 3, s=2)
    assert (hints.of(["t", "s", "u"]), hints.holds_at(["s"])) == ([1, 2, None], 3)


def test_another_s_events_make_all_older_knowledge_void() -> None:
    """Positions that are not ours may have gone to any stream; what came after them is known again."""
    hints = Hints()
    appended(hints, 1, s=1, t=1)
    appended(hints, 7, s=4)
    assert (hints.of(["s", "t"]), hints.holds_at(["s"])) == ([4, None], 7)


def test_a_log_that_lost_its_tail_is_believed() -> None:
    """After a restore the positions begin lower: nothing from before counts."""
    hints = Hints()
    appended(hints, 100, s=9, t=9)
    appended(hints, 41, s=3)
    assert (hints.of(["s", "t"]), hints.holds_at(["s"])) == ([3, None], 41)


def test_an_append_under_way_is_counted_on() -> None:
    """The next append will meet the log behind it, unless both write one stream: then nobody knows."""
    hints = Hints()
    appended(hints, 1, s=1, t=1)
    hints.depart(5, ["t"])
    assert hints.holds_at(["s"]) == 7
    assert hints.holds_at(["s", "t"]) is None


def test_an_append_that_failed_is_not_counted_on() -> None:
    """It wrote nothing, or nobody knows: the log is expected where it was."""
    hints = Hints()
    appended(hints, 1, s=1)
    hints.fail(hints.depart(5, ["t"]))
    assert hints.holds_at(["s"]) == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_answers_may_come_in_any_order(order: tuple[int, ...]) -> None:
    """Whatever answer arrives first, in the end everything is known."""
    hints = Hints()
    appended(hints, 1, s=1, t=1, u=1)
    streams = ["s", "t", "u"]
    flights = [hints.depart(1, [stream]) for stream in streams]
    for number in order:
        hints.arrive(flights[number], 4 + number, {streams[number]: 2})
    assert (hints.of(streams), hints.holds_at(streams)) == ([2, 2, 2], 6)


def test_an_early_answer_is_counted_on_and_its_stream_unknown() -> None:
    """While the answer in front of it is missing, the head can be told, the early stream's version not."""
    hints = Hints()
    appended(hints, 1, s=1, t=1, u=1)
    first = hints.depart(2, ["s"])
    hints.arrive(hints.depart(1, ["t"]), 6, {"t": 2})
    assert hints.holds_at(["u"]) == 6
    assert hints.holds_at(["t"]) is None
    hints.fail(first)
    # What lay in front of it was somebody else's.
    assert (hints.of(["s", "t", "u"]), hints.holds_at(["t"])) == ([None, 2, None], 6)


def test_later_flights_do_not_hold_an_early_answer_up() -> None:
    """Only what was under way before it can lie in front of it: two lanes that always overlap still learn."""
    hints = Hints()
    appended(hints, 1, s=1)
    first = hints.depart(1, ["a"])
    second = hints.depart(1, ["b"])
    hints.arrive(second, 9, {"b": 1})
    third = hints.depart(1, ["c"])
    hints.arrive(first, 8, {"a": 1})
    hints.depart(1, ["d"])
    hints.arrive(third, 10, {"c": 1})
    assert (hints.of(["a", "b", "c", "s"]), hints.holds_at(["a", "b", "c"])) == ([1, 1, 1, None], 11)


def test_an_append_without_events_moves_nothing() -> None:
    """A request that only moves a checkpoint leaves the log where it is."""
    hints = Hints()
    appended(hints, 1, s=1)
    hints.arrive(hints.depart(0, []), 2, {})
    assert (hints.of(["s"]), hints.holds_at(["s"])) == ([1], 1)
