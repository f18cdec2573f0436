"""examples/nats-javascript: the official client for JavaScript follows the hive as docs/nats.md promises."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from hive_bus import Bus, open_bus
from hive_bus.ids import Ids
from hive_bus.mirror.connection import connected
from hive_core_db.records import StoredEvent
from tests.architecture.tree import ROOT
from tests.support.javascript import EXAMPLE, NODE, installed
from tests.support.mirrors import publish, reached, relaying
from tests.support.nats_server import NatsServer
from tests.support.tables import file_of
from tests.support.unmeasured import unmeasured

EVENTS = 100_000
PAGE = 1000


def fill(url: str, first: int, last: int) -> None:
    """Put these events into the log, of every kind: with and without causes, with texts that a header cannot hold."""
    path, ids = file_of(url), Ids()
    assert path is not None
    rows = []
    for position in range(first, last + 1):
        payload = f'{{"number":{position},"text":"für {position % 7} Bienen, 50 %"}}'
        rows.append(
            StoredEvent(
                position=position,
                event_id=ids.event_id(1_700_000_000_000_000 + position),
                stream=f"straße {position % 100}",
                version=(position - first) // 100 + 1,
                topic="mirror_test.noted",
                correlation_id=f"run-{position % 100}",
                causation_id=f"100 % {position - 1}" if position % 3 else None,
                cause_position=position - 1 if position % 3 else None,
                decided_by="queen@1" if position % 3 == 1 else None,
                source="a test, of others",
                schema_version=1,
                payload=payload,
                metadata='{"who":"ä"}' if position % 5 == 0 else None,
                digest=sha256(payload.encode()).hexdigest(),
                append_first=position,
                occurred_at=1_700_000_000_000_000 + position,
                recorded_at=1_700_000_000_000_001 + position,
            )
        )
    with closing(sqlite3.connect(path)) as db, db:
        marks = ", ".join("?" * len(StoredEvent._fields))
        db.executemany(f"INSERT INTO events ({', '.join(StoredEvent._fields)}) VALUES ({marks})", rows)


def expected(row: StoredEvent) -> dict[str, object]:
    """What the example must say of an event."""
    said = {"id" if name == "event_id" else name: value for name, value in row._asdict().items()}
    return said | {"payload": orjson.loads(row.payload), "blob": None}


async def follow(nats: NatsServer, *words: str) -> Process:
    """The example, started."""
    home = await asyncio.to_thread(installed)
    return await asyncio.create_subprocess_exec(
        NODE, "follow.js", "--server", nats.url, *words, cwd=home, stdout=PIPE, stderr=PIPE, limit=1 << 20
    )


async def same(bus: Bus, client: Process, first: int, last: int) -> None:
    """The client says every position once, in order, and everything as the log has it; then it ends."""
    assert client.stdout is not None
    at = first
    while at <= last:
        for row in await bus.store.log.read(at - 1, limit=min(PAGE, last - at + 1)):
            assert orjson.loads(await client.stdout.readline()) == expected(row)
            at = row.position + 1
    assert await client.communicate() == (b"", b"")
    assert client.returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.sqlite_only("what is on NATS is the same for either database, and so many events are costly")
async def test_the_official_client_sees_every_position_once_and_in_order(hive_url: str, tmp_path: Path) -> None:
    """A hundred thousand events, while they are relayed, with every documented header; then from the middle."""
    async with open_bus(hive_url, source="a test") as bus:
        head = await publish(bus, 1)
    await asyncio.to_thread(fill, hive_url, head + 1, EVENTS)
    plain = unmeasured()
    with NatsServer(tmp_path / "nats") as nats:
        relay = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.mirror_process", hive_url, nats.url, "1024", env=plain
        )
        try:
            async with open_bus(hive_url, source="a test") as bus:
                await reached(nats.settings(), bus, 1)
                await same(bus, await follow(nats, "--until", str(EVENTS)), 1, EVENTS)
                middle = EVENTS - 1234
                await same(bus, await follow(nats, "--from", str(middle), "--until", str(EVENTS)), middle, EVENTS)
        finally:
            os.kill(relay.pid, signal.SIGTERM)
            await relay.wait()


@pytest.mark.timeout(600)
@pytest.mark.sqlite_only("what is on NATS is the same for either database")
async def test_the_official_client_notices_a_new_epoch(hive_url: str, tmp_path: Path) -> None:
    """What it followed is not what comes next: it says so and ends."""
    with NatsServer(tmp_path / "nats") as nats:
        async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
            head = await publish(bus, 10)
            await reached(nats.settings(), bus, head)
            client = await follow(nats)
            assert client.stdout is not None
            for _ in range(head):
                await client.stdout.readline()
            async with connected(nats.settings()) as other:
                await other.publish("hive.hive.head", b'{"epoch": 2, "epoch_id": "another"}')
            assert client.stderr is not None
            assert b"epoch 2 began behind position" in await client.stderr.read()
            assert await client.wait() == 1


def test_the_page_and_the_lock_file_are_right() -> None:
    """Every documented header is read by the example, and the lock file names no address."""
    page = (ROOT / "docs" / "nats.md").read_text()
    program = (EXAMPLE / "follow.js").read_text()
    documented = set(re.findall(r"`Hive-([A-Z][\w-]+)`", page))
    assert {name for name in documented if f'"{name}"' not in program} == set()
    assert "resolved" not in (EXAMPLE / "package-lock.json").read_text()
    wanted = json.loads((EXAMPLE / "package.json").read_text())["dependencies"]
    assert set(wanted) == {"@nats-io/jetstream", "@nats-io/transport-node"}
