"""Texts that a backend could trip over come back as they were, and what it cannot keep fails alone."""

from __future__ import annotations

from typing import Any

import pytest

from hive_core_db.records import Appended, Refused, WorkInsert
from hive_core_db.store import Store
from tests.contract.making import event, request, verdicts

# None, and one that holds: PostgreSQL has a way of its own for events that depend on nothing.
_CONDITIONS: tuple[dict[str, int], ...] = ({}, {"s": 0})

ODD = {
    "empty": "",
    "a separator": "a\x1fb",
    "nothing but separators": "\x1f\x1f",
    "what might stand for null": "\x1e",
    "quotes and backslashes": "'\"\\\\{},NULL",
    "lines": "\n\r\t\u2028",
    "beyond the basic plane": "\U0001f41d€ä",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("count", [1, 3])
async def test_odd_texts_come_back_as_they_were(store: Store, name: str, count: int) -> None:
    """In every text of an event, alone and among others, plain and with conditions."""
    text = ODD[name]
    odd: dict[str, Any] = {
        "source": text,
        "metadata": text,
        "causation_id": text,
        "decided_by": text,
        "correlation_id": text,
    }
    for expected in _CONDITIONS:
        news = [request(event(stream=f"{text} {number}", **odd), event(metadata=None)) for number in range(count)]
        found = await verdicts(store, request(event("other")), *(one._replace(expected=expected) for one in news))
        rows = [row for one in found if isinstance(one, Appended) for row in one.events]
        assert len(rows) == 2 * count + 1
        assert await store.log.read(rows[0].position - 1, limit=100) == rows
        assert [row.source for row in rows if row.metadata == text] == [text] * count
        assert [row.causation_id for row in rows if row.metadata is None] == [None] * (count + 1)


async def test_odd_texts_of_work_come_back_as_they_were(store: Store) -> None:
    """Queues, streams and preferences too."""
    intents = [event(f"{text}!", correlation_id=f"{text}?", topic="thing.requested") for text in ODD.values()]
    works = [
        (WorkInsert(event_index=0, queue=text, state="ready", preferred=text or None, hold_out=1),)
        for text in ODD.values()
    ]
    found = await verdicts(store, *(request(one, work=work) for one, work in zip(intents, works, strict=True)))
    assert all(isinstance(one, Appended) for one in found)
    items = await store.work.items()
    assert [(item.queue, item.stream, item.correlation_id) for item in items] == [
        (text, f"{text}!", f"{text}?") for text in ODD.values()
    ]


async def test_a_text_that_cannot_be_kept_fails_alone(store: Store) -> None:
    """A NUL is kept or refused, by the backend's means; its neighbours are appended, and the store goes on."""
    for expected in _CONDITIONS:
        bad = request(event(metadata='"a\0b"'), expected=expected)
        found = await verdicts(store, request(event()), bad, request(event()))
        assert isinstance(found[0], Appended)
        assert isinstance(found[1], Appended | Refused)
        assert isinstance(found[2], Appended)
        stored = [row.metadata for row in await store.log.read(0, limit=20)]
        assert ('"a\0b"' in stored) == isinstance(found[1], Appended)
