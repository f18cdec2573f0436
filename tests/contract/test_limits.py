"""The port `Limits`: slots and rates that all processes share."""

from __future__ import annotations

import asyncio

import pytest

from hive_core_db.records import LimitState
from hive_core_db.store import Store
from tests.contract.conftest import Open
from tests.contract.making import SECOND, START, Clock


async def lease(store: Store, *, ttl: int = 60 * SECOND) -> str:
    """Return the id of a lease of its own."""
    return (await store.leases.open("worker", ttl=ttl)).lease_id


async def only(store: Store) -> LimitState:
    """Return the state of the one key."""
    (state,) = await store.limits.state()
    return state


async def test_slots_are_taken_up_to_the_limit(store: Store) -> None:
    """Who wants more than there are gets what there is; given back, they are there again."""
    ada, bob = await lease(store), await lease(store)
    assert await store.limits.take("gpu", 5, ada, 3) == 3
    assert await store.limits.take("gpu", 5, bob, 3) == 2
    assert await store.limits.take("gpu", 5, ada, 1) == 0
    await store.limits.give("gpu", ada, 2)
    assert await store.limits.take("gpu", 5, ada, 9) == 2
    assert await store.limits.take("other", 5, ada, 1) == 1


async def test_nobody_gives_back_more_than_they_hold(store: Store) -> None:
    """Giving twice, or what was never taken, makes no slot for others."""
    ada, bob = await lease(store), await lease(store)
    assert await store.limits.take("gpu", 2, ada, 2) == 2
    await store.limits.give("gpu", bob, 2)
    await store.limits.give("never", bob, 2)
    await store.limits.give("gpu", ada, 1)
    await store.limits.give("gpu", ada, 5)
    assert await store.limits.take("gpu", 2, bob, 9) == 2


@pytest.mark.parametrize("closed", [True, False])
async def test_slots_of_a_lease_that_ended_are_free(store: Store, clock: Clock, closed: bool) -> None:
    """Closed or expired: nobody has to clear up after a process that died, and it takes no more itself."""
    gone = await lease(store)
    assert await store.limits.take("gpu", 2, gone, 2) == 2
    if closed:
        await store.leases.close(gone)
    else:
        clock.pass_time(60)
    assert (await only(store)).taken == 0
    heir = await lease(store)
    assert await store.limits.take("gpu", 2, gone, 1) == 0
    assert await store.limits.take("gpu", 2, heir, 2) == 2
    await store.limits.give("gpu", gone, 2)
    assert await store.limits.take("gpu", 2, heir, 1) == 0


async def test_a_smaller_limit_waits_for_slots_to_come_back(store: Store) -> None:
    """What is taken above a limit that was lowered stays with who has it; nobody gets more until it is below."""
    ada = await lease(store)
    assert await store.limits.take("gpu", 4, ada, 4) == 4
    assert await store.limits.take("gpu", 2, ada, 1) == 0
    await store.limits.give("gpu", ada, 3)
    assert await store.limits.take("gpu", 2, ada, 2) == 1


async def test_all_processes_together_stay_within_the_limit(open_again: Open) -> None:
    """Many who take and give at once, from several stores: never more than the limit at a time."""
    stores = [await open_again() for _ in range(3)]
    held = most = 0

    async def worker(store: Store) -> None:
        nonlocal held, most
        mine = await lease(store)
        for _ in range(15):
            granted = await store.limits.take("gpu", 4, mine, 2)
            held += granted
            most = max(most, held)
            await asyncio.sleep(0)
            held -= granted
            await store.limits.give("gpu", mine, granted)

    async with asyncio.TaskGroup() as group:
        for store in stores:
            for _ in range(3):
                group.create_task(worker(store))
    assert most <= 4
    assert await stores[0].limits.take("gpu", 4, await lease(stores[0]), 9) == 4


async def test_who_has_waited_for_a_second_comes_first(store: Store, clock: Clock) -> None:
    """A slot that comes back is kept for them, however quick others ask; once served they stand behind again."""
    quick, slow = await lease(store), await lease(store)
    assert await store.limits.take("gpu", 1, quick, 1) == 1
    assert await store.limits.take("gpu", 1, slow, 1) == 0
    await store.limits.give("gpu", quick, 1)
    assert await store.limits.take("gpu", 1, quick, 1) == 1, "nobody has waited long"
    clock.pass_time(1.5)
    assert await store.limits.take("gpu", 1, slow, 1) == 0
    await store.limits.give("gpu", quick, 1)
    assert await store.limits.take("gpu", 1, quick, 1) == 0, "it is kept for who waited"
    assert await store.limits.take("gpu", 1, slow, 1) == 1
    await store.limits.give("gpu", slow, 1)
    assert await store.limits.take("gpu", 1, quick, 1) == 1


async def test_nothing_is_kept_for_who_asks_no_more(store: Store, clock: Clock) -> None:
    """Three seconds without a question, or a question for none, end the waiting."""
    quick, slow, shy = await lease(store), await lease(store), await lease(store)
    assert await store.limits.take("gpu", 1, quick, 1) == 1
    assert await store.limits.take("gpu", 1, slow, 1) == 0
    assert await store.limits.take("gpu", 1, shy, 1) == 0
    assert (await only(store)).missing == 2
    assert await store.limits.take("gpu", 1, shy, 0) == 0
    assert (await only(store)).missing == 1
    clock.pass_time(3)
    assert (await only(store)).missing == 0
    await store.limits.give("gpu", quick, 1)
    assert await store.limits.take("gpu", 1, quick, 1) == 1


async def test_a_bucket_is_full_and_fills_again(store: Store, clock: Clock) -> None:
    """The burst at once, then one every half second; a refusal spends nothing and says how long it will take."""
    assert [await store.limits.spend("api", 2.0, 3.0, 1.0) for _ in range(4)] == [0, 0, 0, SECOND // 2]
    clock.pass_time(0.25)
    assert await store.limits.spend("api", 2.0, 3.0, 1.0) == SECOND // 4
    clock.pass_time(0.25)
    assert await store.limits.spend("api", 2.0, 3.0, 1.0) == 0
    clock.pass_time(60)
    assert [await store.limits.spend("api", 2.0, 3.0, 1.0) for _ in range(4)] == [0, 0, 0, SECOND // 2]


async def test_a_clock_that_goes_back_fills_nothing(store: Store, clock: Clock) -> None:
    """Nor does it take anything away."""
    assert await store.limits.spend("api", 1.0, 2.0, 1.0) == 0
    clock.pass_time(-30)
    assert await store.limits.spend("api", 1.0, 2.0, 1.0) == 0
    assert await store.limits.spend("api", 1.0, 2.0, 1.0) == SECOND


async def test_what_is_larger_than_the_burst_goes_into_debt(store: Store, clock: Clock) -> None:
    """A full bucket grants it, for it never would otherwise; everybody pays for it afterwards."""
    assert await store.limits.spend("tokens", 10.0, 100.0, 150.0) == 0
    assert (await only(store)).level == -50.0
    assert await store.limits.spend("tokens", 10.0, 100.0, 10.0) == 6 * SECOND
    clock.pass_time(6)
    assert await store.limits.spend("tokens", 10.0, 100.0, 10.0) == 0


async def test_an_estimate_is_settled(store: Store) -> None:
    """What was used beyond it is debt, what was not used comes back, never above the burst."""
    assert await store.limits.spend("tokens", 1.0, 100.0, 50.0) == 0
    await store.limits.settle("tokens", 80.0)
    assert (await only(store)).level == -30.0
    assert await store.limits.spend("tokens", 1.0, 100.0, 1.0) == 31 * SECOND
    await store.limits.settle("tokens", -40.0)
    assert await store.limits.spend("tokens", 1.0, 100.0, 1.0) == 0
    await store.limits.settle("tokens", -1000.0)
    assert (await only(store)).level == 100.0
    await store.limits.settle("nobody knows it", 5.0)
    assert [state.key for state in await store.limits.state()] == ["tokens"]


async def test_a_rate_holds_for_all_processes_together(open_again: Open) -> None:
    """Of many who spend at once, as many succeed as the bucket holds."""
    stores = [await open_again() for _ in range(3)]
    waits = await asyncio.gather(*(store.limits.spend("api", 1.0, 10.0, 1.0) for store in stores for _ in range(10)))
    assert waits.count(0) == 10


async def test_a_held_key_gives_nothing_until_its_time(store: Store, clock: Clock) -> None:
    """Neither slots nor rate; a shorter hold does not shorten it."""
    mine = await lease(store)
    await store.limits.hold("api", 30 * SECOND)
    await store.limits.hold("api", SECOND)
    assert await store.limits.take("api", 5, mine, 2) == 0
    assert await store.limits.spend("api", 1.0, 1.0, 1.0) == 30 * SECOND
    assert (await only(store)).held_until == START + 30 * SECOND
    clock.pass_time(30)
    assert (await only(store)).held_until is None
    assert await store.limits.spend("api", 1.0, 1.0, 1.0) == 0
    assert await store.limits.take("api", 5, mine, 2) == 2


async def test_the_state_says_what_people_want_to_know(store: Store, clock: Clock) -> None:
    """Taken, missing, ceiling, level and rate, by key, as they are now."""
    mine = await lease(store)
    await store.limits.take("b", 2, mine, 5)
    await store.limits.spend("a", 2.0, 10.0, 10.0)
    clock.pass_time(1)
    assert await store.limits.state() == [
        LimitState(key="a", ceiling=None, taken=0, missing=0, level=2.0, rate=2.0, burst=10.0, held_until=None),
        LimitState(key="b", ceiling=2, taken=2, missing=3, level=None, rate=None, burst=None, held_until=None),
    ]
