"""Append requests and their verdicts: already there > corrupt > fenced > ended > conflict, not quiet > appended."""

from __future__ import annotations

import pytest

from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    CheckpointMove,
    Conflict,
    Corrupt,
    Ended,
    FencedOff,
    NewEvent,
    NotQuiet,
    Refused,
    WorkClaim,
    WorkEnd,
    WorkInsert,
)
from hive_core_db.store import Store
from hive_errors.store import PayloadTooLarge, ValueRefused
from tests.contract.making import Clock, appended, event, insert, positions, request, span, verdict, verdicts


async def test_a_repetition_is_already_there(store: Store) -> None:
    """The same events again give the first positions, and nothing is written."""
    news = event("s"), event("s")
    first = await appended(store, *news)
    assert await verdict(store, request(*news)) == AlreadyThere(first.first, first.last)
    assert await store.log.head() == 2


async def test_a_repetition_within_a_batch_is_already_there(store: Store) -> None:
    """Twins in one batch are judged as if they had been committed apart."""
    new = event()
    found = await verdicts(store, request(event()), request(new), request(new), request(event()))
    assert [type(one) for one in found] == [Appended, Appended, AlreadyThere, Appended]
    assert [span(one) for one in found] == [(1, 1), (2, 2), (2, 2), (3, 3)]


async def test_a_repetition_applies_nothing_again(store: Store) -> None:
    """What came with the first append, a work item, is not made a second time."""
    new = event()
    one = request(new, work=(WorkInsert(event_index=0, queue="q", state="ready"),))
    await verdict(store, one)
    await verdict(store, request(work=(WorkEnd(work_id=new.event_id, fence=None),)))
    assert isinstance(await verdict(store, one), AlreadyThere)
    assert await store.work.items() == []


@pytest.mark.parametrize("field", ["topic", "stream", "digest"])
async def test_a_known_id_with_other_content_is_corrupt(store: Store, field: str) -> None:
    """An id stands for one stream, topic and payload."""
    new = event("s")
    await appended(store, new)
    others = {
        "topic": new._replace(topic="a.b"),
        "stream": new._replace(stream="t"),
        "digest": new._replace(digest="0" * 64),
    }
    assert await verdict(store, request(others[field])) == Corrupt(new.event_id)


async def test_a_repetition_without_all_its_companions_is_corrupt(store: Store) -> None:
    """Known and unknown ids in one request, or ids of two appends, are a mix-up."""
    one, two, three = event("s"), event("s"), event("s")
    await appended(store, one)
    await appended(store, two)
    assert await verdict(store, request(three, two)) == Corrupt(two.event_id)
    assert await verdict(store, request(one, two)) == Corrupt(two.event_id)
    assert await verdict(store, request(two, one)) == Corrupt(one.event_id)
    assert await store.log.head() == 2


async def test_one_id_twice_in_a_request_is_corrupt(store: Store) -> None:
    """A request that repeats an id contradicts itself."""
    new = event()
    assert await verdict(store, request(new, new)) == Corrupt(new.event_id)
    assert await store.log.head() == 0


async def test_a_repetition_is_recognised_before_it_is_fenced(store: Store) -> None:
    """A reply was lost and the item is ended: the repetition of the end is a success, not a failure."""
    lease = await store.leases.open("worker", ttl=10**7)
    work_id = await insert(store)
    await verdict(store, request(work=(WorkClaim(work_id=work_id, fence=0, lease_id=lease.lease_id),)))
    result = request(event("s"), work=(WorkEnd(work_id=work_id, fence=1),), expected={"s": 0})
    first = await verdict(store, result)
    assert isinstance(first, Appended)
    assert await verdict(store, result) == AlreadyThere(first.first, first.last)
    assert isinstance(await verdict(store, request(*result.events, epoch=9)), AlreadyThere)


async def test_another_epoch_is_fenced(store: Store) -> None:
    """A request names the epoch that its sender believes in."""
    assert await verdict(store, request(event(), epoch=2)) == FencedOff("epoch", 2, 1)


async def test_fenced_goes_before_ended_and_ended_before_conflict(store: Store) -> None:
    """A request with several faults gets the first verdict in the order."""
    gone, held = await insert(store), await insert(store)
    await verdict(store, request(work=(WorkEnd(work_id=gone, fence=None),)))
    ended, fenced = WorkEnd(work_id=gone, fence=0), WorkEnd(work_id=held, fence=7)
    wrong = {"s": 5}
    assert isinstance(await verdict(store, request(event("s"), work=(ended, fenced), expected=wrong)), FencedOff)
    assert await verdict(store, request(event("s"), work=(ended,), expected=wrong)) == Ended(gone)
    assert await verdict(store, request(event("s"), expected=wrong)) == Conflict("s", 5, 0)


async def test_an_expected_version_is_checked(store: Store) -> None:
    """Right goes through, wrong is a conflict that names the version there is; 0 means no event yet."""
    await appended(store, event("s"), expected={"s": 0})
    await appended(store, event("s"), expected={"s": 1})
    assert await verdict(store, request(event("s"), expected={"s": 1})) == Conflict("s", 1, 2)
    assert await verdict(store, request(event("s"), expected={"s": 0})) == Conflict("s", 0, 2)


async def test_a_stream_that_is_not_written_can_be_expected_too(store: Store) -> None:
    """A condition may name any stream."""
    await appended(store, event("account"))
    await appended(store, event("order"), expected={"account": 1, "limit": 0})
    assert await verdict(store, request(event("order"), expected={"account": 0})) == Conflict("account", 0, 1)


async def test_of_two_rivals_in_a_batch_one_wins(store: Store) -> None:
    """A request sees the versions of those before it in its batch."""
    found = await verdicts(store, *(request(event("s"), expected={"s": 0}) for _ in range(3)))
    assert [type(one) for one in found] == [Appended, Conflict, Conflict]
    assert found[1] == Conflict("s", 0, 1)


async def test_quiet_means_nothing_behind_a_position(store: Store) -> None:
    """A correlation that got an event meanwhile is not quiet, also when that event is in the same batch."""
    await appended(store, event(correlation_id="run"))
    await appended(store, event(correlation_id="run"), quiet={"run": 1})
    assert await verdict(store, request(event(), quiet={"run": 1})) == NotQuiet("run", 2)
    other, late = await verdicts(
        store, request(event(correlation_id="run"), quiet={"run": 2}), request(event(), quiet={"run": 2})
    )
    assert isinstance(other, Appended)
    assert late == NotQuiet("run", 3)
    await appended(store, event(correlation_id="new"), quiet={"new": 0})


async def test_a_conflict_goes_before_not_quiet(store: Store) -> None:
    """Both fail: the version is named first."""
    await appended(store, event("s", correlation_id="run"))
    assert isinstance(await verdict(store, request(event(), expected={"s": 0}, quiet={"run": 0})), Conflict)


async def test_a_refused_request_leaves_nothing(store: Store) -> None:
    """All or nothing: the events of a request that is refused are not there, nor is its work."""
    new = event()
    work = (WorkInsert(event_index=0, queue="q", state="ready"), WorkEnd(work_id="nothing", fence=None))
    assert await verdict(store, request(new, work=work)) == Ended("nothing")
    assert await store.log.get(new.event_id) is None
    assert await store.work.items() == []


async def test_a_batch_of_everything_gives_each_its_own_verdict(store: Store) -> None:
    """Good, known, mixed, stale and rivalling requests side by side."""
    old = event("s")
    await appended(store, old)
    found = await verdicts(
        store,
        request(event("s"), expected={"s": 1}),
        request(old),
        request(old, event()),
        request(event(), epoch=5),
        request(event("s"), expected={"s": 1}),
        request(),
        request(event("s"), expected={"s": 2}),
    )
    kinds = [Appended, AlreadyThere, Corrupt, FencedOff, Conflict, Appended, Appended]
    assert [type(one) for one in found] == kinds
    assert positions(await store.log.read_stream("s")) == [1, 2, 3]


async def test_a_request_without_events_says_where_the_log_stands(store: Store) -> None:
    """Nothing was appended, so its span is empty: it ends at the head."""
    assert await verdict(store, request()) == Appended(1, 0, ())
    await appended(store, event())
    assert await verdict(store, request()) == Appended(2, 1, ())
    assert await store.log.append([]) == []


BAD_VALUES = {
    "a lone surrogate": event(source="\ud800"),
    "a huge integer": event(cause_position=2**70),
    "no text": event(topic=object()),
    "nothing where text must be": event(topic=None),
    "a wrong digest of a large payload": event(payload="x" * 70_000, digest="0" * 64),
    "a large payload with a lone surrogate": event(payload="\ud800" * 70_000),
}


@pytest.mark.parametrize("name", BAD_VALUES)
async def test_a_value_that_cannot_be_stored_fails_only_its_own_request(store: Store, name: str) -> None:
    """The neighbours of a bad value are appended; its owner learns what is wrong."""
    bad = request(BAD_VALUES[name])
    found = await verdicts(store, request(event()), bad, request(event()))
    assert [type(one) for one in found] == [Appended, Refused, Appended]
    assert isinstance(found[1], Refused)
    assert isinstance(found[1].error, ValueRefused)
    assert positions(await store.log.read(0, limit=10)) == [1, 2]


async def test_a_work_change_that_points_nowhere_fails_only_its_own_request(store: Store) -> None:
    """An insert must name one of its request's events."""
    lost = request(event(), work=(WorkInsert(event_index=4, queue="q", state="ready"),))
    odd = request(event(), work=(WorkInsert(event_index=0, queue="q", state="asleep"),))
    strange = AppendRequest(epoch=1, work=("no change",))  # type: ignore[arg-type]
    found = await verdicts(store, lost, request(event()), odd, strange)
    assert [type(one) for one in found] == [Refused, Appended, Refused, Refused]


async def test_a_payload_beyond_the_limit_is_refused(store: Store) -> None:
    """More than 16 MiB is too large even for a blob; the neighbours do not notice."""
    large = event(payload="x" * (16 * 1024 * 1024 + 1))
    found, neighbour = await verdicts(store, request(large), request(event()))
    assert isinstance(found, Refused)
    assert isinstance(found.error, PayloadTooLarge)
    assert (found.error.size, found.error.limit) == (16 * 1024 * 1024 + 1, 16 * 1024 * 1024)
    assert isinstance(neighbour, Appended)


async def test_the_store_goes_on_after_a_batch_that_failed(store: Store) -> None:
    """What the writer remembered of versions and topics is not from a batch that was rolled back."""
    await appended(store, event("s"))
    await verdicts(store, request(event("s", topic="new.topic")), request(event("s", source="\ud800")))
    (row,) = (await appended(store, event("s", topic="new.topic"))).events
    assert row.version == 3
    assert await store.log.topics() == ["new.topic", "thing.happened"]


async def test_an_append_that_holds_only_a_move_and_a_known_event_is_judged_by_the_event(
    store: Store, clock: Clock
) -> None:
    """A handler's repeated append is already there, although its checkpoint has moved on since."""
    lease = await store.leases.open("member", ttl=10**7)
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    partition = await store.checkpoints.take("g", 0, lease.lease_id)
    assert partition is not None
    await appended(store, event(), event())
    new: NewEvent = event()

    def moved(to: int) -> CheckpointMove:
        return CheckpointMove(group="g", partition=0, position=to, lease_id=lease.lease_id, fence=partition.fence)

    await appended(store, new, checkpoints=(moved(1),))
    await appended(store, checkpoints=(moved(2),))
    assert isinstance(await verdict(store, request(new, checkpoints=(moved(1),))), AlreadyThere)
