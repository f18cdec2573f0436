"""The stores that every contract suite runs against: a new backend is one line in BACKENDS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from hive_core_db.engine import open_store
from hive_core_db.store import Store
from tests.conftest import HiveUrls
from tests.contract.making import Clock


class Open(Protocol):
    """Opens one more store on the same database, with the test's clock."""

    async def __call__(self) -> Store: ...


def _sqlite(url: str, clock: Clock) -> Awaitable[Store]:
    return open_store(url, now=clock)


def _sqlite_inline(url: str, clock: Clock) -> Awaitable[Store]:
    return open_store(url, now=clock, inline=True)


BACKENDS: dict[str, Callable[[str, Clock], Awaitable[Store]]] = {
    "sqlite": _sqlite,
    "sqlite-inline": _sqlite_inline,
}


@pytest.fixture
def clock() -> Clock:
    """Database time that stands still until the test moves it."""
    return Clock()


@pytest.fixture(params=BACKENDS)
async def open_again(request: pytest.FixtureRequest, hive_urls: HiveUrls, clock: Clock) -> AsyncIterator[Open]:
    """Opens stores on one new database, and closes them at the end."""
    url = hive_urls()
    stores: list[Store] = []

    async def opener() -> Store:
        store = await BACKENDS[request.param](url, clock)
        stores.append(store)
        return store

    yield opener
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_again: Open) -> Store:
    """A store on a new database."""
    return await open_again()
