"""A full disk: a typed error, a rolled-back batch, and a store that goes on once there is room."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.records import Appended
from hive_core_db.store import Store
from hive_errors.store import StoreFull
from tests.contract import making
from tests.contract.making import appended, event, fill, positions

SIZE = 4 * 1024 * 1024


class SmallDisk:
    """A file system of four megabytes, or where none may be mounted, a limit on the file's pages that SQLite keeps."""

    def __init__(self, directory: Path, *, mounted: bool) -> None:
        self.url = f"sqlite:///{directory}/hive.db"
        self._ballast = directory / "ballast"
        self._mounted = mounted

    async def limit(self, store: Store) -> None:
        """Leave little room."""
        if self._mounted:
            self._ballast.write_bytes(b"\0" * (SIZE - 1_200_000))
        else:
            await self._pages(store, 200)

    async def make_room(self, store: Store) -> None:
        """Let the store grow again."""
        if self._mounted:
            self._ballast.unlink()
        else:
            await self._pages(store, 1_000_000)

    async def _pages(self, store: Store, pages: int) -> None:
        runner = store._runner  # type: ignore[attr-defined]
        await runner.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone())


@pytest.fixture(params=["mounted", "limited"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that is nearly full; who may not mount one gets the limit twice."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    may_mount = request.param == "mounted" and os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = may_mount and subprocess.run(command, check=False, capture_output=True).returncode == 0
    yield SmallDisk(place, mounted=mounted)
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


async def fill_up(store: Store) -> int:
    """Append until the disk is full; return how many events the log then has."""
    number = 0
    while True:
        try:
            found = await store.log.append([making.request(event(payload="x" * 20_000), event("s")) for _ in range(3)])
        except StoreFull:
            return number
        assert all(isinstance(one, Appended) for one in found)
        number += 6


async def test_a_full_disk_loses_nothing_and_the_store_goes_on(small_disk: SmallDisk) -> None:
    """The batch that did not fit is not there at all; with room again, the same store appends."""
    store = await open_store(small_disk.url)
    try:
        await small_disk.limit(store)
        number = await fill_up(store)
        assert number > 0
        for _ in range(3):
            assert await fill_up(store) == 0
        assert positions(await store.log.read(0, limit=1000)) == list(range(1, number + 1))
        await small_disk.make_room(store)
        await fill(store, 10)
        await appended(store, event("s"), expected={"s": number // 2})
        assert positions(await store.log.read(0, limit=1000)) == list(range(1, number + 12))
    finally:
        await store.close()
    assert list(map(str, await asyncio.to_thread(lambda: list(audit(small_disk.url))))) == []


async def test_a_large_body_that_does_not_fit_is_refused_alone(small_disk: SmallDisk) -> None:
    """A body of three megabytes finds no room; the small append beside it, tried again, goes through."""
    store = await open_store(small_disk.url)
    try:
        await small_disk.limit(store)
        large = making.request(event(payload="x" * 3_000_000))
        found = await asyncio.gather(store.log.append([large]), return_exceptions=True)
        assert isinstance(found[0], StoreFull)
        assert found[0].retryable
        await fill(store, 1)
        assert await store.log.head() == 1
        await small_disk.make_room(store)
    finally:
        await store.close()
