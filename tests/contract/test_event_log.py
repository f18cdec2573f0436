"""The port `EventLog`: order, reads, and what a reader can rely on."""

from __future__ import annotations

import asyncio

from hive_core_db.records import Appended
from hive_core_db.store import Store
from tests.contract.conftest import Open
from tests.contract.making import SECOND, START, Clock, appended, event, fill, positions, request, verdicts

BIG = '"' + "x" * 70_000 + '"'


async def test_a_new_log_is_empty_and_has_an_identity(store: Store) -> None:
    """A new log has a name, a random id, epoch 1, and no event."""
    meta = await store.log.meta()
    assert (meta.name, meta.epoch, meta.first_position) == ("hive", 1, 1)
    assert len(meta.log_id) == 32
    assert await store.log.head() == 0
    assert await store.log.read(0, limit=10) == []
    assert await store.log.topics() == []


async def test_reopening_finds_the_same_log(open_again: Open) -> None:
    """Identity and events are in the database, not in the process."""
    first = await open_again()
    await fill(first, 3)
    meta = await first.log.meta()
    await first.close()
    second = await open_again()
    assert await second.log.meta() == meta
    assert positions(await second.log.read(0, limit=10)) == [1, 2, 3]


async def test_positions_are_contiguous_over_batches_and_requests(store: Store) -> None:
    """Whatever the shape of the requests, positions are 1, 2, 3 and so on."""
    await verdicts(store, request(event(), event()), request(), request(event()))
    await fill(store, 700, batch=333)
    await appended(store, *(event() for _ in range(1500)))
    rows = await store.log.read(0, limit=5000)
    assert positions(rows) == list(range(1, 2204))


async def test_what_was_appended_is_what_is_read(store: Store) -> None:
    """Every column comes back as it was given; position, version and times are the log's."""
    new = event(
        "s", topic="a.b", correlation_id="c", causation_id="x", cause_position=7, decided_by="brain@1", source="me",
        schema_version=3, payload='{"ä":"€"}', metadata='{"m":1}', occurred_at=5,
    )  # fmt: skip
    (row,) = (await appended(store, new)).events
    assert row[1:3] + row[4:14] == new[:12]
    assert (row.position, row.version, row.append_first, row.occurred_at, row.recorded_at) == (1, 1, 1, 5, START)
    assert await store.log.get(new.event_id) == row
    assert await store.log.read(0, limit=1) == [row]


async def test_an_event_occurred_when_it_was_recorded_unless_it_says_otherwise(store: Store) -> None:
    """Without a time of its own, an event has the log's."""
    (row,) = (await appended(store, event())).events
    assert row.occurred_at == row.recorded_at == START


async def test_recorded_at_never_falls(store: Store, clock: Clock) -> None:
    """A clock that goes back does not take the log with it."""
    await appended(store, event())
    clock.pass_time(-60)
    (row,) = (await appended(store, event())).events
    assert row.recorded_at == START


async def test_versions_are_gapless_per_stream(store: Store) -> None:
    """Two streams that share a batch count on their own."""
    await verdicts(store, request(event("a"), event("b"), event("a")), request(event("b"), event("a")))
    assert [row.version for row in await store.log.read_stream("a")] == [1, 2, 3]
    assert [row.version for row in await store.log.read_stream("b")] == [1, 2]
    assert positions(await store.log.read_stream("a", after=1, limit=1)) == [3]


async def test_fresh_events_of_one_stream_follow_one_another(store: Store) -> None:
    """A fresh stream may have several events in one request, and more in the next."""
    await appended(store, event("new", fresh=True), event("new", fresh=True))
    await verdicts(store, request(event("other", fresh=True)), request(event("other")), request(event("new")))
    assert [row.version for row in await store.log.read_stream("new")] == [1, 2, 3]
    assert [row.version for row in await store.log.read_stream("other")] == [1, 2]


async def test_a_broken_promise_of_freshness_does_no_harm(store: Store) -> None:
    """An event that calls itself fresh and is not gets the right version all the same."""
    await appended(store, event("old"))
    found = await verdicts(store, request(event()), request(event("old", fresh=True)), request(event()))
    assert all(isinstance(one, Appended) for one in found)
    assert [row.version for row in await store.log.read_stream("old")] == [1, 2]


async def test_another_store_on_the_same_database_takes_turns(open_again: Open) -> None:
    """Two writers of one log see each other's versions and positions."""
    one, two = await open_again(), await open_again()
    for store in (one, two, one, two, two, one):
        await appended(store, event("shared"))
    rows = await one.log.read_stream("shared")
    assert [row.version for row in rows] == positions(rows) == [1, 2, 3, 4, 5, 6]


async def test_pages_follow_one_another(store: Store) -> None:
    """A reader that asks behind what it saw misses nothing and sees nothing twice."""
    await fill(store, 25)
    seen: list[int] = []
    while page := await store.log.read(seen[-1] if seen else 0, limit=10):
        assert len(page) <= 10
        seen += positions(page)
    assert seen == list(range(1, 26))


async def test_a_page_can_end_at_a_position(store: Store) -> None:
    """``until`` is the last position that a page may hold."""
    await fill(store, 10)
    assert positions(await store.log.read(2, limit=10, until=5)) == [3, 4, 5]
    assert await store.log.read(5, limit=10, until=5) == []


async def test_topics_are_read_in_the_log_s_order(store: Store) -> None:
    """A page of several topics is the log without the others."""
    for topic in ["a.x", "b.x", "c.x", "a.x", "c.x", "b.x", "a.x"]:
        await appended(store, event(topic=topic))
    assert await store.log.topics() == ["a.x", "b.x", "c.x"]
    assert positions(await store.log.read(0, limit=10, topics=["a.x", "b.x"])) == [1, 2, 4, 6, 7]
    assert positions(await store.log.read(1, limit=2, topics=["b.x", "a.x", "a.x"])) == [2, 4]
    assert positions(await store.log.read(1, limit=9, topics=["a.x", "c.x"], until=4)) == [3, 4]
    assert await store.log.read(0, limit=10, topics=[]) == []
    assert await store.log.read(0, limit=10, topics=["d.x"]) == []
    assert positions(await store.log.read(0, limit=3, topics=[f"t.{n}" for n in range(900)] + ["b.x"])) == [2, 6]


async def test_rows_without_names_are_those_that_are_read(store: Store) -> None:
    """The same columns of the same events, by number, whether one came from the log, a topic's index or from beside the log."""
    for new in (event(topic="a.x"), event(topic="b.x", payload=BIG), event(topic="a.x")):
        await appended(store, new)
    for topics in (None, ["b.x", "a.x"], ["b.x"]):
        read = await store.log.read(0, limit=2, topics=topics)
        rows = await store.log.rows(0, limit=2, topics=topics)
        assert [row[:] for row in rows] == [tuple(row) for row in rows] == read
    assert await store.log.rows(0, limit=2, topics=[]) == []


async def test_the_newest_events_of_topics_come_newest_first(store: Store) -> None:
    """``latest`` reads backwards, from the head or from below a position."""
    for topic in ["a.x", "b.x", "a.x", "c.x", "a.x"]:
        await appended(store, event(topic=topic))
    assert positions(await store.log.latest(["a.x", "b.x"], limit=3)) == [5, 3, 2]
    assert positions(await store.log.latest(["a.x"], limit=3, before=5)) == [3, 1]
    assert await store.log.latest([], limit=3) == []


async def test_a_correlation_is_read_by_its_id(store: Store) -> None:
    """All events of a correlation, in order, from a position on."""
    await appended(store, event(correlation_id="x"), event(correlation_id="y"), event(correlation_id="x"))
    assert positions(await store.log.read_correlation("x")) == [1, 3]
    assert positions(await store.log.read_correlation("x", after=1, limit=1)) == [3]
    assert await store.log.last_of_correlation("x") == 3
    assert await store.log.last_of_correlation("z") == 0


async def test_a_correlation_is_read_up_to_a_position_and_by_topics(store: Store) -> None:
    """Only what lies in between, and only of these topics: pages go on behind their last event."""
    for number, name in enumerate(["x", "y", "x", "x", "x", "x"]):
        await appended(store, event(correlation_id=name, topic=("a.a", "b.b", "c.c")[number % 3]))
    assert positions(await store.log.read_correlation("x", until=4)) == [1, 3, 4]
    assert positions(await store.log.read_correlation("x", topics=["a.a", "c.c", "d.d"])) == [1, 3, 4, 6]
    assert positions(await store.log.read_correlation("x", topics=["a.a", "c.c"], after=1, until=5)) == [3, 4]
    assert positions(await store.log.read_correlation("x", topics=["a.a", "c.c"], after=1, limit=1)) == [3]
    assert (
        await store.log.read_correlation("x", topics=["d.d"]) == await store.log.read_correlation("x", topics=[]) == []
    )


async def test_an_ordinal_within_a_correlation_is_a_position(store: Store) -> None:
    """The n-th event of a correlation, counted from 1, and how many it has up to a position."""
    for name in ["x", "y", "x", "x", "y"]:
        await appended(store, event(correlation_id=name))
    assert [await store.log.nth_of_correlation("x", number) for number in (1, 2, 3, 4)] == [1, 3, 4, 0]
    assert [await store.log.count_correlation("x", until=position) for position in (0, 1, 3, 99)] == [0, 1, 2, 3]
    assert await store.log.nth_of_correlation("z", 1) == await store.log.count_correlation("z", until=9) == 0


async def test_correlations_are_found_by_prefix(store: Store) -> None:
    """A prefix finds the ids that begin with it, sorted and once each."""
    for name in ["abc", "abd", "b", "abc", "a", "ab%", "abé"]:
        await appended(store, event(correlation_id=name))
    assert await store.log.correlations("ab") == ["ab%", "abc", "abd", "abé"]
    assert await store.log.correlations("ab", limit=2) == ["ab%", "abc"]
    assert await store.log.correlations("zz") == []


async def test_a_time_is_a_position(store: Store, clock: Clock) -> None:
    """``position_at`` is the last position recorded at or before a time."""
    for _ in range(9):
        await appended(store, event(), event())
        clock.pass_time(10)
    assert await store.log.position_at(START - 1) == 0
    assert await store.log.position_at(START) == 2
    assert await store.log.position_at(START + 35 * SECOND) == 8
    assert await store.log.position_at(START + 10_000 * SECOND) == 18


async def test_poll_tells_only_of_news(open_again: Open) -> None:
    """``poll`` answers with the head after a write of anybody, and with None when nothing was written."""
    one, two = await open_again(), await open_again()
    assert await one.log.poll() == 0
    assert await one.log.poll() is None
    await appended(two, event())
    assert await news(one) == 1
    assert await one.log.poll() is None
    await appended(one, event())
    assert await news(two) == 2


async def news(store: Store) -> int:
    """Poll until there is news: at once on SQLite, as soon as the wake-up arrives on PostgreSQL."""
    while (head := await store.log.poll()) is None:
        await asyncio.sleep(0)
    return head


async def test_wake_ups_name_the_head(open_again: Open) -> None:
    """Who watches is told how far the log is, where the database wakes anybody; a poll finds it in any case."""
    one, two = await open_again(), await open_again()
    heard: list[int] = []
    one.log.watch(heard.append)
    assert await one.log.poll() == 0
    for position in (1, 2, 3):
        await appended(two, event())
        assert await news(one) == position
    assert heard == sorted(heard)
    assert all(1 <= head <= 3 for head in heard)


async def test_a_large_payload_comes_back_whole(store: Store) -> None:
    """A payload beyond 64 KiB is stored beside the log and read as if it were in it."""
    new = event("s", payload=BIG, correlation_id="c")
    (row,) = (await appended(store, new)).events
    assert row.payload == BIG
    assert await store.blobs.get(new.digest) == BIG.encode()
    assert await store.log.read(0, limit=1) == await store.log.read_stream("s") == [row]
    assert await store.log.read_correlation("c") == [await store.log.get(new.event_id)] == [row]


async def test_a_payload_of_wide_characters_is_measured_in_bytes(store: Store) -> None:
    """30,000 characters of three bytes are more than 64 KiB."""
    wide, narrow = event(payload="€" * 30_000), event(payload="e" * 30_000)
    rows = (await appended(store, wide, narrow)).events
    assert await store.blobs.get(wide.digest) is not None
    assert await store.blobs.get(narrow.digest) is None
    assert tuple(await store.log.read(0, limit=2)) == rows


async def test_concurrent_appends_all_arrive(open_again: Open) -> None:
    """Many callers of two stores: every event is there once, and no version is missing."""
    stores = [await open_again(), await open_again()]
    news = [event("shared" if n % 3 else f"own-{n}") for n in range(60)]
    async with asyncio.TaskGroup() as group:
        for n, new in enumerate(news):
            group.create_task(appended(stores[n % 2], new))
    rows = await stores[0].log.read(0, limit=100)
    assert positions(rows) == list(range(1, 61))
    assert {row.event_id for row in rows} == {new.event_id for new in news}
    assert [row.version for row in await stores[0].log.read_stream("shared")] == list(range(1, 41))


async def test_a_cause_in_the_same_append_is_named_by_its_index(store: Store) -> None:
    """A decision on an event of its own append names it as -1 - i; the stored position is the real one."""
    await fill(store, 3)
    first, second = event(), event()
    rows = (await appended(store, first, second, event(causation_id=second.event_id, cause_position=-2))).events
    assert rows[2].cause_position == rows[1].position == 5
    assert await store.log.read(5, limit=1) == [rows[2]]


async def test_what_one_brain_decided_can_be_read_alone(store: Store) -> None:
    """By stream and by correlation, by the brain's name whatever its version; names that only begin alike are others'."""
    deciders = ["queen@1:a", None, "planner@1:b", "queen@2:c", "queens@1:d", "queen"]
    for decider in deciders:
        await appended(store, event("s", correlation_id="c", decided_by=decider))
    assert positions(await store.log.read_stream("s", decider="queen")) == [1, 4]
    assert positions(await store.log.read_correlation("c", decider="queen")) == [1, 4]
    assert positions(await store.log.read_correlation("c", after=1, decider="queen")) == [4]
    assert positions(await store.log.read_correlation("c", until=3, decider="queen")) == [1]
    assert await store.log.read_stream("s", decider="nobody") == []


async def test_several_events_are_found_at_once(store: Store) -> None:
    """In log order, each once, without those that the log does not have."""
    rows = await fill(store, 5)
    wanted = [rows[3].event_id, "nobody", rows[1].event_id, rows[3].event_id]
    assert await store.log.several(wanted) == [rows[1], rows[3]]
    assert await store.log.several([]) == []


async def test_thousands_of_events_are_one_append(store: Store) -> None:
    """More values than any statement has parameters: one request, one append, nothing cut off."""
    rows = (await appended(store, *(event(f"s{number % 7}") for number in range(5000)))).events
    assert positions(rows) == list(range(1, 5001))
    assert {row.append_first for row in rows} == {1}
    assert positions(await store.log.read(0, limit=6000)) == positions(rows)


async def test_an_epoch_begins_once_above_what_others_have_shown(store: Store) -> None:
    """Whoever asks second, about the epoch that is over, gets the one that began; positions shown elsewhere are not used again."""
    await fill(store, 3)
    first = await store.log.begin_epoch("a mirror was ahead", epoch=1, above=5_000_000)
    again = await store.log.begin_epoch("a mirror was ahead", epoch=1, above=9_000_000)
    assert first == again == (await store.log.epochs())[-1]
    assert (first.number, first.reason, first.first_position > 5_000_000) == (2, "a mirror was ahead", True)
