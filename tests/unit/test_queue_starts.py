"""Where a look at a queue may begin, so that it walks no dead entries and misses nothing for long."""

from __future__ import annotations

from hive_core_db.postgres.queue_starts import START, Place, QueueStarts


def looked(starts: QueueStarts, *found: Place, complete: bool = True, whole: bool = False, took: float = 0.0) -> None:
    """A look at queue q found these."""
    starts.looked(["q"], (("q", place) for place in found), complete=complete, whole=whole, begun=0.0, now=took)


def standing(*places: Place) -> QueueStarts:
    """Starts that were told where queue q stands, one after the other."""
    starts = QueueStarts()
    for number, place in enumerate(places):
        starts.stands({"q": place}, float(number))
    return starts


def test_nothing_is_known_at_first() -> None:
    """The first look is a whole one, and begins at the start."""
    starts = QueueStarts()
    assert starts.whole_is_due(0.0)
    assert starts.start("q") == START


def test_a_look_begins_at_the_first_item_that_the_last_one_found() -> None:
    """What lies before it was not there; where the queue stands is asked for an empty one only."""
    starts = standing((2.0, 100), (3.0, 200))
    looked(starts, (5.0, 50), (6.0, 60))
    assert starts.start("q") == (5.0, 50)


def test_an_empty_queue_begins_where_it_stood() -> None:
    """A complete look that finds nothing has passed everything."""
    starts = standing((2.0, 100), (3.0, 200))
    looked(starts)
    assert starts.start("q") == (2.0, 100)


def test_a_page_full_of_others_says_nothing() -> None:
    """A look that held only items of other queues tells nothing of this one."""
    starts = standing((9.0, 100), (9.0, 200))
    looked(starts, (5.0, 50))
    looked(starts, complete=False)
    assert starts.start("q") == (5.0, 50)


def test_where_a_queue_stands_counts_from_the_next_time_on() -> None:
    """Other processes insert by beliefs that are some milliseconds old."""
    starts = standing((2.0, 100))
    looked(starts)
    assert starts.start("q") == START


def test_whole_looks_take_a_small_share_of_the_time() -> None:
    """One of 1 ms is made every time, one of 10 ms again 200 ms later, a long one after five seconds; an old item's return is a reason."""
    starts = QueueStarts()
    looked(starts, whole=True, took=0.001)
    assert starts.whole_is_due(0.001)
    looked(starts, whole=True, took=0.01)
    assert not starts.whole_is_due(0.2)
    assert starts.whole_is_due(0.22)
    looked(starts, whole=True, took=3.0)
    assert not starts.whole_is_due(7.9)
    assert starts.whole_is_due(8.1)
    looked(starts, whole=True, took=3.0)
    starts.forget()
    assert starts.whole_is_due(3.0)
