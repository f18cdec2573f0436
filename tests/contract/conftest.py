"""The stores that every contract suite runs against: a new backend is one line in BACKENDS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from hive_core_db.engine import open_store
from hive_core_db.store import Store
from tests.conftest import NewDatabase
from tests.contract.making import Clock


class Open(Protocol):
    """Opens one more store on the same database, with the test's clock."""

    async def __call__(self) -> Store: ...


def _stored(url: str, clock: Clock) -> Awaitable[Store]:
    return open_store(url, now=clock)


def _inline(url: str, clock: Clock) -> Awaitable[Store]:
    return open_store(url, now=clock, inline=True)


@dataclass(frozen=True, slots=True)
class Backend:
    """How a store is opened, and for PostgreSQL on which version."""

    open: Callable[[str, Clock], Awaitable[Store]] = _stored
    postgres: int | None = None


BACKENDS: Mapping[str, Backend] = {
    "sqlite": Backend(),
    "sqlite-inline": Backend(_inline),
    "postgres-18": Backend(postgres=18),
    "postgres-16": Backend(postgres=16),
}


IN_PLACE = pytest.mark.may_block("inline, the loop waits for the disk itself")


@pytest.fixture(params=[pytest.param(name, marks=IN_PLACE if "inline" in name else ()) for name in BACKENDS])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return BACKENDS[request.param]


@pytest.fixture
def store_url(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of a new database of this backend."""
    if backend.postgres is None:
        return f"sqlite:///{tmp_path}/hive.db"
    new_log: NewDatabase = request.getfixturevalue("new_log")
    return new_log(backend.postgres)


@pytest.fixture
def clock() -> Clock:
    """Database time that stands still until the test moves it."""
    return Clock()


@pytest.fixture
async def open_again(backend: Backend, store_url: str, clock: Clock) -> AsyncIterator[Open]:
    """Opens stores on one new database, and closes them at the end."""
    stores: list[Store] = []

    async def opener() -> Store:
        store = await backend.open(store_url, clock)
        stores.append(store)
        return store

    yield opener
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_again: Open) -> Store:
    """A store on a new database."""
    return await open_again()
