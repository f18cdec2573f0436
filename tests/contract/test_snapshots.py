"""The port `Snapshots`."""

from __future__ import annotations

from hive_core_db.store import Snapshot, Store

END = 2**63 - 1


def made(decided: int, *, key: str = "run", code: str = "one") -> Snapshot:
    """A snapshot behind a decision."""
    return Snapshot("queen", key, decided, code, decided - 1, 1000 + decided, b"\x00state\xff" * decided)


async def nearest(store: Store, upto: int = END, *, code: str = "one") -> Snapshot | None:
    """The snapshot of the run that is found."""
    return await store.snapshots.nearest("queen", "run", code, upto=upto)


async def test_the_last_one_that_will_do_is_found(store: Store) -> None:
    """Whole decisions count: one that ends behind the position asked for is passed over."""
    assert await nearest(store) is None
    for one in (made(3), made(9), made(20), made(7, key="other")):
        await store.snapshots.put(one)
    assert await nearest(store) == await nearest(store, 20) == made(20)
    assert await nearest(store, 19) == await nearest(store, 9) == made(9)
    assert await nearest(store, 8) == made(3)
    assert await nearest(store, 2) is None


async def test_what_other_code_made_is_not_found_and_is_swept(store: Store) -> None:
    """A snapshot is its code's alone; sweeping leaves other brains' and today's."""
    for one in (made(3), made(9, code="two"), made(9)._replace(brain="drone", code="two")):
        await store.snapshots.put(one)
    assert await nearest(store) == made(3)
    assert await nearest(store, code="two") == made(9, code="two")
    assert await store.snapshots.sweep("queen", "one") == 1
    assert await store.snapshots.sweep("queen", "one") == 0
    assert await nearest(store, code="two") is None
    assert await nearest(store) == made(3)
    assert await store.snapshots.nearest("drone", "run", "two", upto=END) is not None


async def test_the_same_decision_has_one(store: Store) -> None:
    """Put again it gives way: to the same, or to what other code made of it."""
    await store.snapshots.put(made(9))
    await store.snapshots.put(made(9, code="two"))
    assert await nearest(store) is None
    assert await nearest(store, code="two") == made(9, code="two")
