"""The port `WorkQueue`, and the work changes of append requests."""

from __future__ import annotations

import pytest

from hive_core_db.records import (
    RING,
    Appended,
    Ended,
    FencedOff,
    Stretch,
    WorkCancel,
    WorkClaim,
    WorkEnd,
    WorkInsert,
    WorkItem,
    WorkRetry,
    WorkTouch,
)
from hive_core_db.store import Store
from tests.contract.making import SECOND, START, Clock, appended, claim, event, insert, request, verdict, verdicts


async def open_lease(store: Store) -> str:
    """Return the id of a lease that lasts a minute."""
    return (await store.leases.open("worker", ttl=60 * SECOND)).lease_id


def ids(items: list[WorkItem]) -> list[str]:
    """Return the work ids of items."""
    return [item.work_id for item in items]


async def only(store: Store) -> WorkItem:
    """Return the one open item."""
    (item,) = await store.work.items()
    return item


async def test_an_inserted_item_is_its_intent(store: Store) -> None:
    """The item carries its intent's id, position, topic, stream and correlation."""
    work_id = await insert(store, queue="gpu linux", correlation_id="run-x")
    item = await only(store)
    assert item == await store.work.item(work_id)
    assert (item.work_id, item.position, item.topic, item.stream) == (work_id, 1, "thing.requested", "work")
    assert (item.correlation_id, item.queue, item.state) == ("run-x", "gpu linux", "ready")
    assert (item.attempt, item.fence, item.lease_id, item.cancel_requested) == (0, 0, None, False)
    assert item.inserted_at == START


async def test_a_ready_item_is_claimable_in_its_queue_only(store: Store) -> None:
    """A hand sees the queues that it asks for."""
    here, there = await insert(store, queue="a"), await insert(store, queue="b")
    assert ids(await store.work.claimable(["a"], limit=9)) == [here]
    assert ids(await store.work.claimable(["a", "b", "a"], limit=9)) == [here, there]
    assert await store.work.claimable(["c"], limit=9) == []
    assert await store.work.claimable([], limit=9) == []


async def test_a_stretch_of_the_ring_is_a_part_of_the_page(store: Store) -> None:
    """Two stretches that are the ring have between them what the page has, each in turn order; its length is counted before."""
    made = [await insert(store, correlation_id="run") for _ in range(20)]
    page = await store.work.claimable(["q"], limit=15)
    assert ids(page) == made[:15]
    for start in (0, 1000, RING - 1):
        halves = Stretch(start, RING // 2), Stretch((start + RING // 2) % RING, RING // 2)
        one, two = [await store.work.claimable(["q"], limit=15, stretch=half) for half in halves]
        assert 4 <= len(one) <= 11
        assert sorted([*one, *two], key=lambda item: item.position) == page
        assert one == sorted(one, key=lambda item: item.position)
    assert await store.work.claimable(["q"], limit=15, stretch=Stretch(0, RING)) == page
    assert await store.work.claimable(["q"], limit=15, stretch=Stretch(0, 0)) == []


async def test_an_item_is_claimed_once(store: Store) -> None:
    """Of two who saw the same item, one takes it; the other is fenced off."""
    lease, work_id = await open_lease(store), await insert(store)
    first, second = await verdicts(
        store, *(request(work=(WorkClaim(work_id=work_id, fence=0, lease_id=lease),)) for _ in range(2))
    )
    assert isinstance(first, Appended)
    assert second == FencedOff(f"work item {work_id}, claimed", 0, 1)
    item = await only(store)
    assert (item.state, item.attempt, item.fence, item.lease_id, item.claimed_at) == ("claimed", 1, 1, lease, START)
    assert await store.work.claimable(["q"], limit=9) == []


async def test_a_closed_lease_claims_nothing(store: Store) -> None:
    """A process that was replaced cannot take work any more."""
    lease, work_id = await open_lease(store), await insert(store)
    await store.leases.close(lease)
    assert isinstance(await claim(store, work_id, lease), FencedOff)


async def test_an_item_ends_once(store: Store) -> None:
    """The end needs the claim's fence; a second end finds the item ended."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    assert isinstance(await verdict(store, request(work=(WorkEnd(work_id=work_id, fence=0),))), FencedOff)
    await appended(store, event(), work=(WorkEnd(work_id=work_id, fence=1),))
    assert await verdict(store, request(work=(WorkEnd(work_id=work_id, fence=1),))) == Ended(work_id)
    assert await verdict(store, request(work=(WorkEnd(work_id=work_id, fence=None),))) == Ended(work_id)
    assert isinstance(await claim(store, work_id, lease, fence=1), Ended)
    assert await store.work.items() == []
    assert await store.work.item(work_id) is None


async def test_people_end_an_item_whoever_holds_it(store: Store) -> None:
    """An end without a fence needs no claim, and ends a claimed item too."""
    lease = await open_lease(store)
    waiting, held = await insert(store, state="waiting"), await insert(store)
    await claim(store, held, lease)
    for work_id in (waiting, held):
        await appended(store, event(), work=(WorkEnd(work_id=work_id, fence=None),))
    assert await store.work.items() == []


async def test_the_clock_ends_an_unclaimed_item_by_its_fence(store: Store) -> None:
    """Who ends an unclaimed item names the fence that it read: a claim in between refuses it."""
    lease = await open_lease(store)
    delayed, taken = await insert(store, state="delayed", delay=5), await insert(store)
    await appended(store, work=(WorkEnd(work_id=delayed, fence=0),))
    await claim(store, taken, lease)
    assert isinstance(await verdict(store, request(work=(WorkEnd(work_id=taken, fence=0),))), FencedOff)


async def test_insert_claim_and_end_fit_into_one_request(store: Store) -> None:
    """A step that costs nothing is one append: its item never waits."""
    lease, new = await open_lease(store), event(topic="thing.requested")
    work = (
        WorkInsert(event_index=0, queue="q", state="ready"),
        WorkClaim(work_id=new.event_id, fence=0, lease_id=lease),
        WorkEnd(work_id=new.event_id, fence=1),
    )
    await appended(store, new, event(), event(), work=work)
    assert await store.work.items() == []
    assert await verdict(store, request(work=(WorkEnd(work_id=new.event_id, fence=1),))) == Ended(new.event_id)


async def test_requests_of_a_batch_see_each_other_s_items(store: Store) -> None:
    """Inserted, claimed, given back, claimed again and ended within one batch."""
    lease, new = await open_lease(store), event()
    name = new.event_id
    found = await verdicts(
        store,
        request(new, work=(WorkInsert(event_index=0, queue="q", state="ready"),)),
        request(work=(WorkClaim(work_id=name, fence=0, lease_id=lease),)),
        request(work=(WorkRetry(work_id=name, fence=1, delay=0),)),
        request(work=(WorkEnd(work_id=name, fence=1),)),
        request(work=(WorkClaim(work_id=name, fence=2, lease_id=lease),)),
        request(work=(WorkEnd(work_id=name, fence=3),)),
        request(work=(WorkEnd(work_id=name, fence=3),)),
    )
    assert [type(one) for one in found] == [Appended, Appended, Appended, FencedOff, Appended, Appended, Ended]


async def test_a_retry_comes_back_after_its_delay(store: Store, clock: Clock) -> None:
    """Given back, the item is delayed; when the time has come it is made ready, and its attempts go on counting."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    await appended(store, event(), work=(WorkRetry(work_id=work_id, fence=1, delay=10 * SECOND),))
    item = await only(store)
    assert (item.state, item.lease_id, item.attempt, item.due_at) == ("delayed", None, 1, START + 10 * SECOND)
    assert await store.work.claimable(["q"], limit=9) == []
    assert await store.work.next_due() == START + 10 * SECOND
    assert await store.work.make_ready(work_id) is False
    clock.pass_time(10)
    assert [(item.work_id, item.reason) for item in await store.work.due(limit=9)] == [(work_id, "delay")]
    assert await store.work.make_ready(work_id) is True
    assert await store.work.make_ready(work_id) is False
    item = await only(store)
    assert isinstance(await claim(store, work_id, lease, fence=item.fence), Appended)
    assert (await only(store)).attempt == 2


async def test_who_gave_an_item_back_ends_it_no_more(store: Store) -> None:
    """The fence grows when an item is given back: a late result of the last owner is refused."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    await appended(store, work=(WorkRetry(work_id=work_id, fence=1, delay=0),))
    assert isinstance(await verdict(store, request(event(), work=(WorkEnd(work_id=work_id, fence=1),))), FencedOff)
    assert isinstance(await verdict(store, request(work=(WorkTouch(work_id=work_id, fence=1),))), FencedOff)
    assert isinstance(await verdict(store, request(work=(WorkRetry(work_id=work_id, fence=2, delay=0),))), FencedOff)


async def test_a_cancelled_item_cannot_be_claimed(store: Store) -> None:
    """Asked to end and unclaimed: nobody takes it, and the clock ends it at once."""
    lease, work_id = await open_lease(store), await insert(store)
    await appended(store, event(), work=(WorkCancel(work_id=work_id),))
    assert (await only(store)).cancel_requested
    assert await store.work.claimable(["q"], limit=9) == []
    assert isinstance(await claim(store, work_id, lease), FencedOff)
    assert [(item.work_id, item.reason) for item in await store.work.due(limit=9)] == [(work_id, "cancel")]
    due = await store.work.next_due()
    assert due is not None
    assert due <= START


async def test_who_holds_a_cancelled_item_is_told(store: Store) -> None:
    """A claimed item that was asked to end is its hand's to end; the clock leaves it."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    await appended(store, event(), work=(WorkCancel(work_id=work_id), WorkCancel(work_id=work_id)))
    assert await store.work.cancelled(lease) == [work_id]
    assert await store.work.cancelled("another") == []
    assert await store.work.due(limit=9) == []
    await appended(store, event(), work=(WorkEnd(work_id=work_id, fence=1),))


async def test_a_cancelled_retry_ends(store: Store) -> None:
    """A cancelled item that was given back is the clock's to end, not to make ready."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    await appended(store, work=(WorkCancel(work_id=work_id), WorkRetry(work_id=work_id, fence=1, delay=SECOND)))
    assert [item.reason for item in await store.work.due(limit=9)] == ["cancel"]
    assert await store.work.make_ready(work_id) is False


async def test_cancelling_what_has_ended_changes_nothing(store: Store) -> None:
    """No verdict depends on a cancellation."""
    assert isinstance(await verdict(store, request(event(), work=(WorkCancel(work_id="gone"),))), Appended)


async def test_time_makes_a_delayed_item_due(store: Store, clock: Clock) -> None:
    """A timer is due when its delay has passed, not before."""
    work_id = await insert(store, state="delayed", delay=30 * SECOND)
    assert await store.work.next_due() == START + 30 * SECOND
    clock.pass_time(29)
    assert await store.work.due(limit=9) == []
    clock.pass_time(1)
    assert [(item.work_id, item.reason) for item in await store.work.due(limit=9)] == [(work_id, "delay")]


@pytest.mark.parametrize("state", ["ready", "waiting"])
async def test_who_waits_too_long_is_due(store: Store, clock: Clock, state: str) -> None:
    """The waiting timeout runs while nobody holds the item."""
    lease, work_id = await open_lease(store), await insert(store, state=state, waiting_timeout=5 * SECOND)
    clock.pass_time(5)
    assert [item.reason for item in await store.work.due(limit=9)] == ["waiting"]
    if state == "ready":
        await claim(store, work_id, lease)
        assert await store.work.due(limit=9) == []


async def test_who_runs_or_is_silent_too_long_is_due(store: Store, clock: Clock) -> None:
    """The running timeout counts from the claim, the silent one from the last sign of life."""
    lease, work_id = (
        await open_lease(store),
        await insert(store, running_timeout=20 * SECOND, silent_timeout=8 * SECOND),
    )
    clock.pass_time(30)
    assert await store.work.due(limit=9) == []
    await claim(store, work_id, lease)
    clock.pass_time(7)
    await appended(store, work=(WorkTouch(work_id=work_id, fence=1),))
    clock.pass_time(7)
    assert await store.work.due(limit=9) == []
    clock.pass_time(1)
    assert [item.reason for item in await store.work.due(limit=9)] == ["silent"]
    await appended(store, work=(WorkTouch(work_id=work_id, fence=1),))
    clock.pass_time(5)
    assert [item.reason for item in await store.work.due(limit=9)] == ["running"]


async def test_the_total_timeout_runs_in_every_state(store: Store, clock: Clock) -> None:
    """From insertion on, whatever happens to the item."""
    lease = await open_lease(store)
    ready = await insert(store, total_timeout=10 * SECOND)
    held = await insert(store, total_timeout=10 * SECOND)
    delayed = await insert(store, state="delayed", delay=60 * SECOND, total_timeout=10 * SECOND)
    await claim(store, held, lease)
    assert await store.work.next_due() == START + 10 * SECOND
    clock.pass_time(10)
    found = {item.work_id: item.reason for item in await store.work.due(limit=9)}
    assert found == {ready: "total", held: "total", delayed: "total"}
    assert len(await store.work.due(limit=2)) == 2


@pytest.mark.parametrize("closed", [True, False])
async def test_a_claim_under_a_lease_that_ended_is_due(store: Store, clock: Clock, closed: bool) -> None:
    """Closed or expired: what its process held comes back through the clock."""
    lease, work_id = await open_lease(store), await insert(store)
    await claim(store, work_id, lease)
    assert await store.work.due(limit=9) == []
    assert await store.work.next_due() == START + 60 * SECOND
    if closed:
        await store.leases.close(lease)
    else:
        clock.pass_time(60)
    assert [(item.work_id, item.reason) for item in await store.work.due(limit=9)] == [(work_id, "lease")]


async def test_without_time_nothing_falls_due(store: Store) -> None:
    """An item without timeouts that nobody holds never wakes the clock."""
    await insert(store)
    await insert(store, state="waiting")
    assert await store.work.next_due() is None
    assert await store.work.due(limit=9) == []


async def test_items_are_listed_in_insertion_order(store: Store) -> None:
    """All of them, or those of one correlation."""
    made = [
        await insert(store, correlation_id=run, priority=priority) for run, priority in [("a", 9), ("b", 1), ("a", 5)]
    ]
    assert ids(await store.work.items()) == made
    assert ids(await store.work.items("a")) == [made[0], made[2]]
    assert await store.work.items("c") == []


async def test_no_run_starves_another(store: Store) -> None:
    """A run that comes with one item does not wait behind a run that came with many."""
    many = [await insert(store, correlation_id="many") for _ in range(50)]
    one = await insert(store, correlation_id="one")
    order = ids(await store.work.claimable(["q"], limit=99))
    assert order.index(one) == 1
    assert [work_id for work_id in order if work_id != one] == many


async def test_priority_goes_first_and_never_for_ever(store: Store) -> None:
    """A critical item overtakes; a background item comes all the same while critical ones keep coming."""
    lease = await open_lease(store)
    background = await insert(store, correlation_id="slow", priority=9)
    normal = await insert(store, correlation_id="usual")
    critical = await insert(store, correlation_id="fast", priority=1)
    assert ids(await store.work.claimable(["q"], limit=9)) == [critical, normal, background]
    for served in range(400):
        await insert(store, correlation_id=f"fast-{served}", priority=1)
        (first,) = await store.work.claimable(["q"], limit=1)
        if first.work_id == background:
            break
        await claim(store, first.work_id, lease)
        await appended(store, work=(WorkEnd(work_id=first.work_id, fence=1),))
    else:
        pytest.fail("the background item never came")
    assert served > 20


async def test_a_costly_run_waits_longer(store: Store) -> None:
    """Turns are spent by cost: a run of expensive items gets fewer of them."""
    dear = [await insert(store, correlation_id="dear", cost=5.0) for _ in range(3)]
    cheap = [await insert(store, correlation_id="cheap", cost=1.0) for _ in range(6)]
    order = ids(await store.work.claimable(["q"], limit=99))
    assert order.index(dear[1]) > order.index(cheap[4])


async def test_an_item_holds_out_for_the_worker_it_prefers(store: Store, clock: Clock) -> None:
    """Others see it when the time is over; the preferred worker sees it at once."""
    work_id = await insert(store, preferred="ada", hold_out=5 * SECOND)
    plain = await insert(store)
    assert ids(await store.work.claimable(["q"], limit=9)) == [plain]
    assert ids(await store.work.claimable(["q"], limit=9, worker="bob")) == [plain]
    assert ids(await store.work.claimable(["q"], limit=9, worker="ada")) == [work_id, plain]
    clock.pass_time(5)
    assert ids(await store.work.claimable(["q"], limit=9, worker="bob")) == [work_id, plain]
    assert ids(await store.work.claimable(["q"], limit=9)) == [work_id, plain]
    assert ids(await store.work.claimable(["q"], limit=9, worker="ada")) == [work_id, plain]


async def test_claims_move_the_queue_on(store: Store) -> None:
    """A run that comes later starts where the queue is, not at its beginning."""
    lease = await open_lease(store)
    old = [await insert(store, correlation_id="old") for _ in range(10)]
    for work_id in old[:5]:
        await claim(store, work_id, lease)
        await appended(store, work=(WorkEnd(work_id=work_id, fence=1),))
    late = await insert(store, correlation_id="late")
    order = ids(await store.work.claimable(["q"], limit=99))
    assert order.index(late) == 1
