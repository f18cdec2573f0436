"""The ports `Checkpoints` and `Leases`: who owns what, and what a stale owner can still do (nothing)."""

from __future__ import annotations

import pytest

from hive_core_db.records import (
    AlreadyThere,
    Appended,
    CheckpointMove,
    FencedOff,
    ParkedKey,
    ParkKey,
    Partition,
    UnparkKey,
    Verdict,
)
from hive_core_db.store import Store
from hive_errors.store import Fenced
from tests.contract.making import SECOND, START, Clock, appended, claim, event, fill, insert, request, verdict, verdicts


async def member(store: Store, owner: str = "one") -> str:
    """Open a lease of ten seconds and return its id."""
    return (await store.leases.open(owner, ttl=10 * SECOND)).lease_id


async def owned(store: Store, lease_id: str, *, group: str = "g", number: int = 0) -> Partition:
    """Take a partition, which must be free."""
    found = await store.checkpoints.take(group, number, lease_id)
    assert found is not None
    return found


def move(partition: Partition, position: int, **fields: object) -> CheckpointMove:
    """Return the move of the partition's owner."""
    values = {"lease_id": partition.lease_id, "fence": partition.fence} | fields
    return CheckpointMove(group=partition.group, partition=partition.number, position=position, **values)  # type: ignore[arg-type]


async def moved(store: Store, *moves: CheckpointMove) -> Verdict:
    """Append moves alone."""
    return await verdict(store, request(checkpoints=moves))


async def test_a_group_keeps_its_number_of_partitions(store: Store) -> None:
    """The first caller decides, for ever; each partition starts at the given position."""
    assert await store.checkpoints.ensure_group("g", partitions=3, start=7) == 3
    assert await store.checkpoints.ensure_group("g", partitions=9, start=0) == 3
    assert await store.checkpoints.ensure_group("f", partitions=1, start=0) == 1
    found = await store.checkpoints.partitions("g")
    assert found == [Partition(group="g", number=n, position=7, lease_id=None, fence=0) for n in range(3)]
    assert await store.checkpoints.groups() == ["f", "g"]
    assert await store.checkpoints.partitions("nobody") == []


async def test_a_group_has_at_least_one_partition(store: Store) -> None:
    """None is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        await store.checkpoints.ensure_group("g", partitions=0, start=0)


async def test_a_partition_has_one_owner(store: Store) -> None:
    """Taken, it is the owner's until it is released; each owner has a higher fence."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one, two = await member(store), await member(store, "two")
    first = await owned(store, one)
    assert (first.lease_id, first.fence) == (one, 1)
    assert await store.checkpoints.take("g", 0, one) == first
    assert await store.checkpoints.take("g", 0, two) is None
    assert await store.checkpoints.take("g", 5, two) is None
    await store.checkpoints.release("g", 0, one, first.fence)
    assert (await owned(store, two)).fence == 2


async def test_a_stale_release_frees_nothing(store: Store) -> None:
    """Who lost a partition cannot release its next owner's."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one, two = await member(store), await member(store, "two")
    first = await owned(store, one)
    await store.checkpoints.release("g", 0, one, first.fence)
    second = await owned(store, two)
    await store.checkpoints.release("g", 0, one, first.fence)
    assert await store.checkpoints.partitions("g") == [second]


async def test_taking_over_closes_the_expired_lease(store: Store, clock: Clock) -> None:
    """Everything that the late process held is free at once, and it learns so when it renews."""
    await store.checkpoints.ensure_group("g", partitions=2, start=0)
    one = await member(store)
    await store.checkpoints.join("g", one)
    first, other = await owned(store, one), await owned(store, one, number=1)
    clock.pass_time(10)
    two = await member(store, "two")
    taken = await owned(store, two)
    assert (taken.lease_id, taken.fence) == (two, 2)
    assert (await store.checkpoints.partitions("g"))[1].lease_id is None
    assert await store.checkpoints.members("g") == []
    assert await store.leases.renew(one, ttl=SECOND) is False
    for stale in (first, other):
        assert isinstance(await moved(store, move(stale, 0)), FencedOff)


async def test_a_closed_lease_takes_nothing(store: Store) -> None:
    """A process that was replaced gets no partition and becomes no member."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one = await member(store)
    await store.leases.close(one)
    assert await store.checkpoints.take("g", 0, one) is None
    with pytest.raises(Fenced, match=one):
        await store.checkpoints.join("g", one)


async def test_a_late_owner_who_was_not_replaced_goes_on(store: Store, clock: Clock) -> None:
    """Lease and fence decide, never the clock: an expired lease that nobody closed still writes."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one = await member(store)
    partition = await owned(store, one)
    await fill(store, 3)
    clock.pass_time(60)
    assert isinstance(await moved(store, move(partition, 2)), Appended)
    assert await store.leases.renew(one, ttl=10 * SECOND) is True


async def test_members_are_the_living(store: Store, clock: Clock) -> None:
    """Who left, was closed or is late is no member; joining twice is once."""
    one, two, three = sorted([await member(store), await member(store), await member(store)])
    for lease in (three, one, two, one):
        await store.checkpoints.join("g", lease)
    assert await store.checkpoints.members("g") == [one, two, three]
    await store.checkpoints.leave("g", two)
    await store.leases.close(three)
    assert await store.checkpoints.members("g") == [one]
    clock.pass_time(10)
    assert await store.checkpoints.members("g") == []


async def test_rosters_of_many_groups_in_one_look(store: Store, clock: Clock) -> None:
    """Members and partitions of each group that was asked for, and of no other; an unknown one is empty."""
    for group, partitions in (("g", 2), ("h", 1), ("other", 1)):
        await store.checkpoints.ensure_group(group, partitions=partitions, start=0)
    one, two = sorted([await member(store), await member(store)])
    for group, lease in (("g", one), ("g", two), ("h", two), ("other", one)):
        await store.checkpoints.join(group, lease)
    held = await owned(store, two, group="h")
    found = await store.checkpoints.rosters(["h", "g", "nobody"])
    assert {group: roster.members for group, roster in found.items()} == {"g": (one, two), "h": (two,), "nobody": ()}
    assert found["h"].partitions == (held,)
    assert found["nobody"].partitions == ()
    assert [(row.number, row.lease_id, row.fence) for row in found["g"].partitions] == [(0, None, 0), (1, None, 0)]
    clock.pass_time(10)
    assert (await store.checkpoints.rosters(["g"]))["g"].members == ()


async def test_who_leaves_frees_its_partitions(store: Store) -> None:
    """Leaving a group gives its partitions back, and only those of this group."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    await store.checkpoints.ensure_group("h", partitions=1, start=0)
    one = await member(store)
    await owned(store, one)
    kept = await owned(store, one, group="h")
    await store.checkpoints.leave("g", one)
    assert (await store.checkpoints.partitions("g"))[0].lease_id is None
    assert await store.checkpoints.partitions("h") == [kept]


async def test_a_checkpoint_moves_with_the_events_of_its_append(store: Store) -> None:
    """Both are there, or neither."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    partition = await owned(store, await member(store))
    await fill(store, 5)
    await appended(store, event("s"), checkpoints=(move(partition, 4),))
    assert (await store.checkpoints.partitions("g"))[0].position == 4
    refused = await verdict(store, request(event("s"), checkpoints=(move(partition, 5),), expected={"s": 0}))
    assert not isinstance(refused, Appended)
    assert (await store.checkpoints.partitions("g"))[0].position == 4


async def test_a_checkpoint_moves_forward_to_the_head_at_most(store: Store) -> None:
    """Staying is fine; back, or beyond the head, is fenced off. The head counts the request's own events."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    partition = await owned(store, await member(store))
    await fill(store, 3)
    assert isinstance(await moved(store, move(partition, 2), move(partition, 2)), Appended)
    assert isinstance(await moved(store, move(partition, 1)), FencedOff)
    assert isinstance(await moved(store, move(partition, 4)), FencedOff)
    await appended(store, event(), checkpoints=(move(partition, 4),))


async def test_a_stranger_s_checkpoint_is_fenced_off(store: Store) -> None:
    """Another fence, another lease, an unknown partition or group."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one, two = await member(store), await member(store, "two")
    partition = await owned(store, one)
    await fill(store, 1)
    strangers = [
        move(partition, 1, fence=0),
        move(partition, 1, fence=2),
        move(partition, 1, lease_id=two),
        CheckpointMove(group="g", partition=9, position=0, lease_id=one, fence=1),
        CheckpointMove(group="h", partition=0, position=0, lease_id=one, fence=1),
    ]
    found = await verdicts(store, *(request(event(), checkpoints=(stranger,)) for stranger in strangers))
    assert [type(one) for one in found] == [FencedOff] * 5
    assert (await store.checkpoints.partitions("g"))[0].position == 0
    assert await store.log.head() == 1


async def test_moves_of_a_batch_follow_one_another(store: Store) -> None:
    """A request sees the checkpoint that the one before it left."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    partition = await owned(store, await member(store))
    await fill(store, 5)
    found = await verdicts(store, *(request(checkpoints=(move(partition, to),)) for to in (2, 5, 3)))
    assert [type(one) for one in found] == [Appended, Appended, FencedOff]
    assert (await store.checkpoints.partitions("g"))[0].position == 5


async def test_an_owner_can_be_required_without_a_move(store: Store) -> None:
    """A decision that marks its cause itself still needs the partition."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one = await member(store)
    partition = await owned(store, one)
    await appended(store, event(), owner=("g", 0, one, partition.fence))
    await store.leases.close(one)
    assert isinstance(await verdict(store, request(event(), owner=("g", 0, one, partition.fence))), FencedOff)


async def test_a_key_is_parked_moved_and_let_go(store: Store, clock: Clock) -> None:
    """The first failure parks a key, the next ones move its try, the last append lets it go."""
    await store.checkpoints.ensure_group("g", partitions=2, start=0)
    partition = await owned(store, await member(store), number=1)
    await fill(store, 3)

    def park(attempt: int, retry_in: int | None) -> ParkKey:
        return ParkKey(
            group="g", key="k", partition=1, from_position=2, attempt=attempt, retry_in=retry_in, error="it broke"
        )

    await appended(store, event(), checkpoints=(move(partition, 3),), parks=(park(1, 5 * SECOND),))
    (found,) = await store.checkpoints.parked("g")
    assert found == ParkedKey(
        group="g", key="k", partition=1, from_position=2, attempt=1, next_try=START + 5 * SECOND, error="it broke"
    )
    clock.pass_time(5)
    await appended(store, parks=(park(2, None),), owner=("g", 1, partition.lease_id or "", partition.fence))
    (found,) = await store.checkpoints.parked()
    assert (found.attempt, found.next_try) == (2, None)
    assert await store.checkpoints.parked("g", partition=1) == [found]
    assert await store.checkpoints.parked("g", partition=0) == await store.checkpoints.parked("h") == []
    await appended(store, parks=(UnparkKey(group="g", key="k"),))
    assert await store.checkpoints.parked() == []


async def test_a_lease_lives_until_it_ends(store: Store, clock: Clock) -> None:
    """Opened, renewed, expired and closed; all of it in database time."""
    one = await store.leases.open("ada", ttl=10 * SECOND, info='{"pid":1}')
    assert (one.owner, one.opened_at, one.expires_at, one.closed, one.info) == (
        "ada",
        START,
        START + 10 * SECOND,
        False,
        '{"pid":1}',
    )
    two = await store.leases.open("bob", ttl=10 * SECOND)
    clock.pass_time(8)
    assert await store.leases.renew(one.lease_id, ttl=10 * SECOND) is True
    assert {lease.owner for lease in await store.leases.live()} == {"ada", "bob"}
    clock.pass_time(8)
    assert [lease.owner for lease in await store.leases.live()] == ["ada"]
    assert await store.leases.renew(two.lease_id, ttl=10 * SECOND) is True
    await store.leases.close(two.lease_id)
    await store.leases.close(two.lease_id)
    assert await store.leases.renew(two.lease_id, ttl=10 * SECOND) is False
    assert [lease.owner for lease in await store.leases.live()] == ["ada"]
    assert await store.leases.renew("nobody", ttl=SECOND) is False


async def test_old_leases_are_forgotten_unless_work_names_them(store: Store, clock: Clock) -> None:
    """A closed lease is kept for a day; the clock still finds what a closed one holds."""
    one, two = await member(store), await member(store, "two")
    work_id = await insert(store)
    await claim(store, work_id, one)
    await store.leases.close(one)
    await store.leases.close(two)
    clock.pass_time(2 * 24 * 3600)
    await member(store, "three")
    assert [(item.lease_id, item.reason) for item in await store.work.due(limit=9)] == [(one, "lease")]


async def test_a_stale_owner_is_fenced_before_its_ids_are_compared(store: Store) -> None:
    """Its successor appended something else under the same derived id: that is no damage of the log, but a lost partition."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    one, two = await member(store), await member(store)
    stale = await owned(store, one)
    await store.leases.close(one)
    held = await owned(store, two)
    mine, other = event("s", payload='{"n":2}', event_id="derived"), event("s", payload='{"n":3}', event_id="derived")
    await appended(store, mine, owner=("g", 0, two, held.fence))
    late = request(other, owner=("g", 0, one, stale.fence), checkpoints=(move(stale, 1),))
    assert isinstance(await verdict(store, late), FencedOff)
    again = request(mine, owner=("g", 0, one, stale.fence), checkpoints=(move(stale, 1),))
    assert isinstance(await verdict(store, again), AlreadyThere)
    assert (await store.checkpoints.partitions("g"))[0].position == 0
