"""What only shows with two writers: two stores on one database, or two appends of one store under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    CheckpointMove,
    Conflict,
    Ended,
    FencedOff,
    NotQuiet,
    Verdict,
    ViewWrite,
    WorkCancel,
    WorkClaim,
    WorkEnd,
    WorkInsert,
    WorkRetry,
    WorkTouch,
)
from hive_core_db.store import Store
from tests.contract.conftest import Open
from tests.contract.making import Clock, appended, claim, event, fill, insert, positions, request, verdict, verdicts

LONG = 10**9


@pytest.fixture
async def pair(open_again: Open) -> tuple[Store, Store]:
    """Two stores on one new database."""
    return await open_again(), await open_again()


async def at_once(*appends: tuple[Store, Sequence[AppendRequest]]) -> list[list[Verdict]]:
    """Append the batches side by side."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.log.append(batch)) for store, batch in appends]
    return [task.result() for task in tasks]


async def increment(store: Store, stream: str, times: int) -> None:
    """Append to the stream ``times`` times, each time to the version that was seen."""
    version = done = 0
    while done < times:
        found = await verdict(store, request(event(stream), expected={stream: version}))
        if isinstance(found, Conflict):
            assert found.actual > version
            version = found.actual
        else:
            assert isinstance(found, Appended)
            version, done = version + 1, done + 1


async def test_rivals_for_a_stream_all_get_there(pair: tuple[Store, Store]) -> None:
    """Four writers in two stores append by the version they saw, and again when it was stale: none is lost, none doubled."""
    async with asyncio.TaskGroup() as group:
        for store in pair * 2:
            group.create_task(increment(store, "counter", 8))
    rows = await pair[0].log.read(0, limit=100)
    assert positions(rows) == [row.version for row in rows] == list(range(1, 33))


async def test_batches_of_two_stores_interleave_without_a_gap(pair: tuple[Store, Store]) -> None:
    """Plain events to shared, own and fresh streams, in many batches at once: positions and versions have no hole."""

    def batch(number: int) -> list[AppendRequest]:
        return [
            request(event("shared"), event(f"own-{number % 2}", correlation_id="c")),
            request(event(fresh=True)),
            request(event("shared", cause_position=-1)),
        ]

    appends = [(store, batch(number)) for number in range(12) for store in pair]
    for found in await at_once(*appends):
        assert all(isinstance(one, Appended) for one in found)
        for one in found:
            assert isinstance(one, Appended)
            assert positions(one.events) == list(range(one.first, one.last + 1))
            assert {row.append_first for row in one.events} == {one.first}
    rows = await pair[1].log.read(0, limit=200)
    assert positions(rows) == list(range(1, 97))
    assert [row.recorded_at for row in rows] == sorted(row.recorded_at for row in rows)
    for stream in ("shared", "own-0", "own-1"):
        stored = await pair[0].log.read_stream(stream)
        assert [row.version for row in stored] == list(range(1, len(stored) + 1))
    assert all(row.cause_position in (None, row.position) for row in rows)


async def test_the_rows_that_are_returned_are_those_that_are_stored(pair: tuple[Store, Store]) -> None:
    """Also when another store appended between two appends of one: versions, positions and times are the log's."""
    one, two = pair
    returned = list((await appended(one, event("s"), event("t"))).events)
    returned += (await appended(two, event("s"))).events
    returned += (await appended(one, event("s"))).events
    returned += (await appended(one, event("s"), event("s"))).events
    returned += (await appended(two, event("s", cause_position=-1), event("t"))).events
    returned += (await appended(one, event("t"), expected={"t": 2, "s": 6})).events
    assert await one.log.read(0, limit=20) == returned


async def test_a_claim_raced_by_two_stores_is_won_once(pair: tuple[Store, Store]) -> None:
    """Each of many items goes to exactly one of two claimants, who both try all of them."""
    leases = [await store.leases.open("worker", ttl=LONG) for store in pair]
    items = [await insert(pair[0], correlation_id=f"run-{number}") for number in range(20)]

    async def take(store: Store, lease_id: str) -> list[Verdict]:
        claims = [request(event(), work=(WorkClaim(item, 0, lease_id),)) for item in items]
        return [found for begin in range(0, 20, 5) for found in await store.log.append(claims[begin : begin + 5])]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(take(store, lease.lease_id)) for store, lease in zip(pair, leases, strict=True)]
    for number, found in enumerate(zip(*(task.result() for task in tasks), strict=True)):
        assert {type(one) for one in found} == {Appended, FencedOff}
        stored = await pair[0].work.item(items[number])
        assert stored is not None
        winner = 0 if isinstance(found[0], Appended) else 1
        assert (stored.lease_id, stored.fence, stored.attempt) == (leases[winner].lease_id, 1, 1)
    assert await pair[0].log.head() == 40


async def test_an_item_that_another_store_ended_is_not_claimed(pair: tuple[Store, Store]) -> None:
    """Who inserted an item remembers it; that another store ended it since is found, and the neighbours go through."""
    one, two = pair
    lease = await one.leases.open("worker", ttl=LONG)
    item, other = await insert(one), await insert(one)
    assert isinstance(await verdict(two, request(work=(WorkEnd(item, None),))), Appended)
    found = await verdicts(
        one,
        request(event()),
        request(event(), work=(WorkClaim(item, 0, lease.lease_id),)),
        request(event(), work=(WorkClaim(other, 0, lease.lease_id),)),
    )
    assert [type(each) for each in found] == [Appended, Ended, Appended]
    assert await one.log.head() == 4


async def test_a_claim_that_another_store_took_back_ends_nothing(pair: tuple[Store, Store]) -> None:
    """The item was given back by somebody else: its old owner's end is fenced off with the fence there is now."""
    one, two = pair
    lease = await one.leases.open("worker", ttl=LONG)
    item = await insert(one)
    await claim(one, item, lease.lease_id)
    assert isinstance(await verdict(two, request(work=(WorkRetry(work_id=item, fence=1, delay=0),))), Appended)
    for change in (WorkEnd(item, 1), WorkTouch(work_id=item, fence=1), WorkRetry(work_id=item, fence=1, delay=0)):
        assert await verdict(one, request(event(), work=(change,))) == FencedOff(f"work item {item}, ready", 1, 2)
    assert await one.log.head() == 1


async def test_what_another_store_asked_for_is_not_overwritten(pair: tuple[Store, Store], clock: Clock) -> None:
    """A sign of life of an item that another store asked to end leaves the request standing."""
    one, two = pair
    lease = await one.leases.open("worker", ttl=LONG)
    item = await insert(one, silent_timeout=10)
    await claim(one, item, lease.lease_id)
    assert isinstance(await verdict(two, request(work=(WorkCancel(work_id=item),))), Appended)
    clock.pass_time(5)
    assert isinstance(await verdict(one, request(work=(WorkTouch(work_id=item, fence=1),))), Appended)
    assert await one.work.cancelled(lease.lease_id) == [item]


async def test_a_lease_that_another_store_closed_claims_nothing(pair: tuple[Store, Store]) -> None:
    """The claimant believes in its lease; the database knows better."""
    one, two = pair
    lease = await one.leases.open("worker", ttl=LONG)
    first, second = await insert(one), await insert(one)
    assert isinstance(await claim(one, first, lease.lease_id), Appended)
    await two.leases.close(lease.lease_id)
    assert await claim(one, second, lease.lease_id) == FencedOff(f"lease {lease.lease_id}, closed", 0, 0)


async def test_a_partition_that_another_store_took_moves_no_more(pair: tuple[Store, Store], clock: Clock) -> None:
    """The old owner's move is fenced off with the new fence, its neighbours go through, and the new owner's move counts."""
    one, two = pair
    await fill(one, 5)
    old = await one.leases.open("one", ttl=10)
    await one.checkpoints.ensure_group("g", partitions=1, start=0)
    held = await one.checkpoints.take("g", 0, old.lease_id)
    assert held is not None
    assert isinstance(await verdict(one, request(checkpoints=(move(1, old.lease_id, held.fence),))), Appended)
    clock.pass_time(60)
    new = await two.leases.open("two", ttl=LONG)
    taken = await two.checkpoints.take("g", 0, new.lease_id)
    assert taken is not None
    stale = request(event(), checkpoints=(move(2, old.lease_id, held.fence),))
    owner = request(event(), owner=("g", 0, old.lease_id, held.fence))
    fenced = FencedOff("partition 0 of group g", held.fence, taken.fence)
    found = await verdicts(one, request(event()), stale, owner, request(event()))
    assert [type(each) for each in found] == [Appended, FencedOff, FencedOff, Appended]
    assert found[1] == found[2] == fenced
    assert isinstance(await verdict(two, request(checkpoints=(move(3, new.lease_id, taken.fence),))), Appended)
    (partition,) = await one.checkpoints.partitions("g")
    assert (partition.position, partition.fence) == (3, taken.fence)


def move(position: int, lease_id: str, fence: int) -> CheckpointMove:
    """Move the one partition of the group."""
    return CheckpointMove(group="g", partition=0, position=position, lease_id=lease_id, fence=fence)


async def test_a_checkpoint_may_stand_at_what_another_store_appended(pair: tuple[Store, Store]) -> None:
    """A consumer in one process handles what another process published: the head is the log's, not its own."""
    one, two = pair
    lease = await one.leases.open("one", ttl=LONG)
    await one.checkpoints.ensure_group("g", partitions=1, start=0)
    held = await one.checkpoints.take("g", 0, lease.lease_id)
    assert held is not None
    await fill(two, 30)
    handled = request(event(correlation_id="run"), checkpoints=(move(30, lease.lease_id, held.fence),))
    answered = request(event(correlation_id="run"), quiet={"run": 31})
    beyond = request(checkpoints=(move(33, lease.lease_id, held.fence),))
    found = await verdicts(one, handled, answered, beyond)
    assert [type(each) for each in found] == [Appended, Appended, FencedOff]


async def test_a_correlation_in_which_another_store_went_on_is_not_quiet(pair: tuple[Store, Store]) -> None:
    """The refusal names the other's event; without a newer one the same request goes through."""
    one, two = pair
    await appended(one, event(correlation_id="run"))
    await appended(two, event(correlation_id="run"))
    decision = request(event(correlation_id="run"), quiet={"run": 1})
    neighbour, refused = await verdicts(one, request(event()), decision)
    assert isinstance(neighbour, Appended)
    assert refused == NotQuiet("run", 2)
    assert isinstance(await verdict(one, decision._replace(quiet={"run": 2})), Appended)


async def test_a_stream_in_which_another_store_went_on_conflicts(pair: tuple[Store, Store]) -> None:
    """The version that one store knows is stale: the conflict names the one there is."""
    one, two = pair
    await appended(one, event("s"), expected={"s": 0})
    await appended(two, event("s"), expected={"s": 1})
    neighbour, refused = await verdicts(one, request(event("s")), request(event("s"), expected={"s": 2}))
    assert isinstance(neighbour, Appended)
    assert neighbour.events[0].version == 3
    assert refused == Conflict("s", 2, 3)
    assert await verdict(one, request(event("s"), expected={"s": 1})) == Conflict("s", 1, 3)


async def test_a_document_that_another_store_wrote_is_continued_or_refused(pair: tuple[Store, Store]) -> None:
    """A write behind the other's ends its row there; a write into its past is fenced off."""
    one, two = pair
    await fill(one, 9)
    assert isinstance(await verdict(one, request(views=(write(2, "a"),))), Appended)
    assert isinstance(await verdict(two, request(views=(write(5, "b"),))), Appended)
    assert await verdict(one, request(views=(write(4, "c"),))) == FencedOff("document k of view v", 4, 5)
    assert isinstance(await verdict(one, request(views=(write(7, "d"), write(8, None)))), Appended)
    bodies = [row and row.body for row in [await two.views.get("v", 1, "k", at=at) for at in range(1, 10)]]
    assert bodies == [None, "a", "a", "a", "b", "b", "d", None, None]


def write(position: int, body: str | None) -> ViewWrite:
    """Write the one document."""
    return ViewWrite(view="v", version=1, key="k", position=position, body=body)


async def test_an_id_that_two_stores_append_at_once_is_there_once(pair: tuple[Store, Store]) -> None:
    """A caller who repeats what may have happened does no harm, wherever the repetition comes from."""
    news = [event("s") for _ in range(6)]
    batch = [request(new) for new in news]
    found = await at_once((pair[0], batch), (pair[1], batch), (pair[0], batch[::-1]))
    for number in range(6):
        kinds = [type(found[0][number]), type(found[1][number]), type(found[2][5 - number])]
        assert sorted(kind.__name__ for kind in kinds) == ["AlreadyThere", "AlreadyThere", "Appended"]
    assert await pair[0].log.head() == 6


async def test_two_appends_of_one_store_are_judged_one_after_the_other(store: Store) -> None:
    """Of rivals in two appends under way at once one wins; a repetition in the other one is already there."""
    twin = event("twin")

    def rivals() -> list[AppendRequest]:
        return [request(event("s"), expected={"s": 0}), request(event("plain")), request(twin)]

    one, two = await at_once((store, rivals()), (store, rivals()))
    assert {type(one[0]), type(two[0])} == {Appended, Conflict}
    assert {type(one[2]), type(two[2])} == {Appended, AlreadyThere}
    assert [row.version for row in await store.log.read_stream("plain")] == [1, 2]
    assert await store.log.head() == 4


async def test_topics_of_two_appends_at_once_are_all_known(store: Store) -> None:
    """A topic that is new in two appends at once is listed, also when one of them is refused."""
    await at_once(
        (store, [request(event(topic="new.one")), request(event(topic="new.two"), expected={"s": 7})]),
        (store, [request(event(topic="new.one")), request(event(topic="new.three"))]),
    )
    await appended(store, event(topic="new.two"))
    assert await store.log.topics() == ["new.one", "new.three", "new.two"]


async def test_a_cancelled_append_is_whole_or_not_at_all(pair: tuple[Store, Store]) -> None:
    """Appends are cancelled at every moment; each is in the log whole or not, and both stores go on at once."""
    for pauses in range(8):
        news = [event("s"), event("s")]
        item = event(topic="thing.requested")
        batch = [
            request(*news),
            request(item, work=(WorkInsert(event_index=0, queue="q", state="ready"),), expected={item.stream: 0}),
        ]
        async with asyncio.TaskGroup() as group:
            append = group.create_task(pair[0].log.append(batch))
            for _ in range(pauses):
                await asyncio.sleep(0)
            append.cancel()
        await appended(pair[1], event("s"))
        await appended(pair[0], event("s"))
        stored = [await pair[1].log.get(new.event_id) for new in news]
        assert stored[0] is None or stored[1] is not None
        assert (await pair[1].log.get(item.event_id) is None) == (await pair[1].work.item(item.event_id) is None)
        assert all(isinstance(each, Appended | AlreadyThere) for each in await pair[0].log.append(batch))
    rows = await pair[0].log.read(0, limit=200)
    assert positions(rows) == list(range(1, 8 * 5 + 1))
    assert [row.version for row in rows if row.stream == "s"] == list(range(1, 8 * 4 + 1))
