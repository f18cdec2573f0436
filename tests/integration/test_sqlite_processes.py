"""One SQLite file, several programs: locked by another, written by two, killed in mid-load, forked."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.records import Appended
from hive_core_db.store import Store
from hive_errors.store import StoreBusy, StoreClosed, StoreForked
from tests.contract.making import appended, event, fill, positions, request
from tests.support.tables import sqlite_url

pytestmark = pytest.mark.sqlite_only("about a file that several programs open")

ROOT = Path(__file__).parents[2]


async def writer(url: str, name: str, *, ahead: int = 1) -> asyncio.subprocess.Process:
    """Start a process that appends without end, and without a pause if batches wait ``ahead``."""
    command = (sys.executable, "-m", "tests.integration.log_writer", url, name, str(ahead))
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)


async def said(process: asyncio.subprocess.Process, lines: int) -> list[tuple[int, int]]:
    """Return the next lines: how many events of its own, and the last position, were durable then."""
    assert process.stdout is not None
    found = []
    for _ in range(lines):
        number, position = (await process.stdout.readline()).split()
        found.append((int(number), int(position)))
    return found


async def rest(process: asyncio.subprocess.Process) -> list[tuple[int, int]]:
    """Return what a killed process said before its end, whole lines only."""
    assert process.stdout is not None
    text = await process.stdout.read()
    return [
        (int(a), int(b))
        for a, b in (line.split() for line in text.decode().splitlines(keepends=True) if line.endswith("\n"))
    ]


async def whole_log(store: Store) -> list[str]:
    """Return the ids of all events, in order."""
    ids: list[str] = []
    while page := await store.log.read(len(ids), limit=1000):
        ids += [row.event_id for row in page]
    return ids


async def test_killed_writers_lose_nothing_and_leave_a_sound_file(hive_url: str) -> None:
    """Two processes append; both are killed in mid-load: what they were told is durable is there, in order, once."""
    for round_ in range(3):
        one, two = await writer(hive_url, f"one-{round_}"), await writer(hive_url, f"two-{round_}")
        told = {"one": await said(one, 5), "two": await said(two, 5)}
        for name, process in (("one", one), ("two", two)):
            process.send_signal(signal.SIGKILL)
            told[name] += await rest(process)
            await process.wait()
        store = await open_store(hive_url)
        try:
            ids = await whole_log(store)
            for name, lines in told.items():
                own = [event_id for event_id in ids if event_id.startswith(f"{name}-{round_}-")]
                assert own == [f"{name}-{round_}-{n}" for n in range(1, len(own) + 1)]
                assert len(own) >= lines[-1][0]
            assert len(await store.work.items()) == len(ids) - round_
            await fill(store, 1)
        finally:
            await store.close()
        assert list(map(str, await asyncio.to_thread(lambda: list(audit(hive_url))))) == []


async def test_writers_without_pause_leave_each_other_a_share(hive_url: str) -> None:
    """Three processes append as fast as they can: of the next commits none gets nearly nothing, as SQLite's own wait allows."""
    names = ("one", "two", "three")
    processes = [await writer(hive_url, name, ahead=3) for name in names]
    shares: Counter[str] = Counter()

    async def count(name: str, process: asyncio.subprocess.Process) -> None:
        while shares.total() < 300:
            await said(process, 1)
            shares[name] += 1

    try:
        for process in processes:
            await said(process, 1)
        async with asyncio.TaskGroup() as group:
            for name, process in zip(names, processes, strict=True):
                group.create_task(count(name, process))
    finally:
        for process in processes:
            process.kill()
            await rest(process)
            await process.wait()
    assert min(shares[name] for name in names) >= 40, shares


async def test_a_file_locked_by_another_program_is_busy_and_then_fine(hive_url: str) -> None:
    """After the timeout the caller gets a retryable error; nothing was written, and later appends work."""
    store = await open_store(hive_url, busy_timeout=0.05)
    try:
        await fill(store, 1)
        other = sqlite3.connect(sqlite_url(hive_url).path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy) as caught:
            await appended(store, event())
        assert caught.value.retryable
        assert pickle.loads(pickle.dumps(caught.value)).facts == caught.value.facts
        assert positions(await store.log.read(0, limit=9)) == [1]
        other.execute("COMMIT")
        other.close()
        await fill(store, 1)
        assert positions(await store.log.read(0, limit=9)) == [1, 2]
    finally:
        await store.close()


async def test_an_append_waits_for_another_program_s_lock(hive_url: str) -> None:
    """Within the timeout a locked file is only slower: "database is locked" never surfaces."""
    store = await open_store(hive_url)
    other = sqlite3.connect(sqlite_url(hive_url).path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(appended(store, event()))
            # The reader is not held up by the lock, so its answers are a measure of the writer's wait.
            for _ in range(50):
                assert await store.log.head() == 0
            assert not waiting.done()
            other.execute("COMMIT")
        assert waiting.result().last == 1
    finally:
        other.close()
        await store.close()


async def test_a_cancelled_append_is_whole_or_not_at_all(hive_url: str) -> None:
    """Callers are cancelled at every moment: each request's two events are both there or both not."""
    store = await open_store(hive_url)
    try:
        for turns in range(40):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(store.log.append([request(event(f"s{turns}"), event(f"s{turns}"))]))
                for _ in range(turns % 8):
                    await asyncio.sleep(0)
                task.cancel()
        last = await appended(store, event())
        rows = await store.log.read(0, limit=1000)
        assert positions(rows) == list(range(1, last.last + 1))
        for turns in range(40):
            assert len(await store.log.read_stream(f"s{turns}")) in {0, 2}
    finally:
        await store.close()
    assert list(map(str, await asyncio.to_thread(lambda: list(audit(hive_url))))) == []


@pytest.mark.may_block("it waits for a child that ends at once, or when its coverage is written")
async def test_a_store_does_not_cross_a_fork(hive_url: str) -> None:
    """In a child process the parent's store refuses every call, and the parent goes on."""
    store = await open_store(hive_url)
    try:
        await fill(store, 1)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            # The child has no loop of its own and no threads: it only asks.
            try:
                store.log.append([request(event())]).send(None)
            except StoreForked as error:
                os.write(write, str(error.opened_by).encode())
            except BaseException as error:  # noqa: BLE001 - the parent reads what it was
                os.write(write, repr(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1000) == str(os.getpid()).encode()
        os.close(read)
        os.close(write)
        await fill(store, 1)
        assert await store.log.head() == 2
    finally:
        await store.close()


async def test_a_closed_store_says_so(hive_url: str) -> None:
    """After closing, calls fail with an error that names the file; closing twice is fine."""
    store = await open_store(hive_url)
    await store.close()
    await store.close()
    for call in (store.log.head(), store.log.append([request(event())]), store.log.poll()):
        with pytest.raises(StoreClosed, match=r"hive-1\.db"):
            await call


async def test_closing_waits_for_what_was_asked(hive_url: str) -> None:
    """Appends that wait when the store is closed are written, and their callers are told."""
    store = await open_store(hive_url)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(store.log.append([request(event())])) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
    assert all(isinstance(task.result()[0], Appended) for task in waiting)


async def test_the_write_ahead_log_is_folded_back(hive_url: str) -> None:
    """It never grows far beyond 16 MB, however much is written, and readers do not mind."""
    store = await open_store(hive_url)
    wal = sqlite_url(hive_url).path.with_name(sqlite_url(hive_url).path.name + "-wal")
    try:
        sizes = []
        for _ in range(60):
            await fill(store, 50, batch=50, payload="x" * 20_000)
            sizes.append(wal.stat().st_size)
            await store.log.read(0, limit=10)
        assert sum(sizes) / 60 < 17_000_000
        assert max(sizes) < 25_000_000
        assert min(sizes[20:]) < 8_000_000
        assert await store.log.head() == 3000
    finally:
        await store.close()


async def test_two_processes_open_one_new_file_at_once(hive_url: str) -> None:
    """Whoever comes second finds the log that the first one made."""
    stores = await asyncio.gather(*(open_store(hive_url) for _ in range(6)))
    try:
        metas = {(await store.log.meta()).log_id for store in stores}
        assert len(metas) == 1
    finally:
        for store in stores:
            await store.close()
