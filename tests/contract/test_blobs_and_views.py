"""The ports `Blobs` and `Views`."""

from __future__ import annotations

from hashlib import sha256

from hive_core_db.records import Appended, FencedOff, ViewRow, ViewWrite
from hive_core_db.store import Store
from tests.contract.making import Clock, appended, event, request, verdict, verdicts

DAY = 24 * 3600


def write(
    key: str, position: int, body: str | None, *, sort: str = "", view: str = "board", version: int = 1
) -> ViewWrite:
    """Return one document's write."""
    return ViewWrite(view=view, version=version, key=key, position=position, body=body, sort=sort)


async def bodies(store: Store, *, at: int | None = None) -> dict[str, str]:
    """Return the documents of the board, as they are or were."""
    return {row.key: row.body for row in await store.views.rows("board", 1, at=at)}


async def test_a_body_is_stored_once_under_its_digest(store: Store) -> None:
    """Storing is idempotent; what is not there is None."""
    body = b"\x00binary\xff" * 1000
    digest = await store.blobs.put(body)
    assert digest == await store.blobs.put(body) == sha256(body).hexdigest()
    assert await store.blobs.get(digest) == body
    assert await store.blobs.get("0" * 64) is None


async def test_only_what_nobody_names_is_swept_after_a_day(store: Store, clock: Clock) -> None:
    """A named body stays for ever, a large payload's too; an unnamed one goes when it was not used for a day."""
    named, unnamed, used = [await store.blobs.put(body) for body in (b"named", b"unnamed", b"used")]
    large = event(payload="x" * 70_000)
    await appended(store, event(), blobs=(named,))
    await appended(store, large)
    clock.pass_time(DAY - 1)
    assert await store.blobs.sweep() == 0
    await store.blobs.put(b"used")
    clock.pass_time(2)
    assert await store.blobs.sweep() == 1
    assert await store.blobs.get(unnamed) is None
    assert None not in [await store.blobs.get(digest) for digest in (named, used, large.digest)]


async def test_events_cannot_name_a_body_that_is_gone(store: Store) -> None:
    """An append that names a body that was swept, or never stored, is refused."""
    assert isinstance(await verdict(store, request(event(), blobs=("0" * 64,))), FencedOff)


async def test_a_document_is_what_was_written_last(store: Store) -> None:
    """Written, written again and ended."""
    await appended(store, event(), views=(write("a", 1, "one"), write("b", 1, "two")))
    await appended(store, event(), views=(write("a", 2, "three"),))
    assert await bodies(store) == {"a": "three", "b": "two"}
    await appended(store, event(), views=(write("b", 3, None),))
    assert await bodies(store) == {"a": "three"}
    assert await store.views.get("board", 1, "b") is None
    assert await store.views.get("board", 2, "a") is None
    assert await store.views.get("board", 1, "a") == ViewRow(
        view="board", version=1, key="a", from_position=2, until_position=None, sort="", body="three"
    )


async def test_the_past_stays_readable(store: Store) -> None:
    """``at`` shows each document as it was at a position."""
    for position, body in [(1, "one"), (4, "four"), (6, None), (8, "eight")]:
        await appended(store, event(), views=(write("a", position, body),))
    past = [await bodies(store, at=at) for at in range(10)]
    assert [found.get("a") for found in past] == [
        None,
        "one",
        "one",
        "one",
        "four",
        "four",
        None,
        None,
        "eight",
        "eight",
    ]
    row = await store.views.get("board", 1, "a", at=3)
    assert row is not None
    assert (row.from_position, row.until_position) == (1, 4)


async def test_two_writes_at_one_position_are_one(store: Store) -> None:
    """The last one counts, in one append and over two."""
    await appended(
        store, event(), views=(write("a", 1, "one"), write("a", 1, "two"), write("b", 1, "x"), write("b", 1, None))
    )
    await appended(store, event(), views=(write("a", 1, "three"),))
    assert await bodies(store) == {"a": "three"}
    assert await bodies(store, at=1) == {"a": "three"}
    await appended(store, event(), views=(write("a", 1, None), write("c", 1, None)))
    assert await bodies(store, at=1) == {}
    await appended(store, event(), views=(write("a", 1, "four"),))
    assert await bodies(store) == {"a": "four"}


async def test_a_document_s_past_is_not_rewritten(store: Store) -> None:
    """A write behind the last one is a stale projection's: the whole request is refused."""
    await appended(store, event(), views=(write("a", 5, "five"),))
    found = await verdicts(
        store,
        request(event(), views=(write("b", 1, "x"), write("a", 4, "four"))),
        request(views=(write("a", 6, "six"),)),
        request(views=(write("a", 5, "again"),)),
    )
    assert [type(one) for one in found] == [FencedOff, Appended, FencedOff]
    assert await bodies(store) == {"a": "six"}


async def test_rows_come_sorted_and_by_page(store: Store) -> None:
    """Ascending by (sort, key); a page follows the last row of the one before."""
    made = [("c", "1"), ("a", "2"), ("b", "1"), ("d", "3"), ("e", "2")]
    await appended(store, event(), views=tuple(write(key, 1, key, sort=sort) for key, sort in made))
    await appended(store, event(), views=(write("d", 2, "d", sort="0"),))
    seen: list[str] = []
    after: tuple[str, str] | None = None
    while page := await store.views.rows("board", 1, limit=2, after=after):
        seen += [row.key for row in page]
        after = page[-1].sort, page[-1].key
    assert seen == ["d", "b", "c", "a", "e"]
    assert [row.key for row in await store.views.rows("board", 1, at=1)] == ["b", "c", "a", "e", "d"]


async def test_a_version_of_a_view_is_dropped_alone(store: Store) -> None:
    """A rebuild is another version; dropping the old one leaves it."""
    await appended(
        store, event(), views=(write("a", 1, "old"), write("a", 1, "new", version=2), write("a", 1, "x", view="other"))
    )
    await store.views.drop("board", 1)
    assert await bodies(store) == {}
    assert [row.body for row in await store.views.rows("board", 2)] == ["new"]
    assert len(await store.views.rows("other", 1)) == 1
