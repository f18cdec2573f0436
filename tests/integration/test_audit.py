"""The auditor finds nothing in a sound database, and names each planted corruption."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.postgres.session import Session
from hive_core_db.url import SqliteUrl, parse
from hive_errors.store import StoreUnavailable
from tests.contract.making import appended, event, fill
from tests.support.lived import RESULTS, WORDS, audited, live


@pytest.fixture
async def sound(hive_url: str) -> str:
    """A database in which a little of everything happened."""
    async with await open_store(hive_url) as store:
        await live(store)
    return hive_url


async def test_a_sound_database_has_no_findings(sound: str) -> None:
    """With the vocabulary, without it, and with only its results."""
    assert await audited(sound) == []
    assert await audited(sound, None) == []
    # Without `queued`, an intent that never goes into the queue looks lost: only floor 3 knows better.
    assert [found.code for found in await audited(sound, RESULTS)] == ["intent-lost"]


@pytest.mark.sqlite_only("a connection of the driver's is given")
async def test_an_open_file_is_audited_through_its_connection(sound: str) -> None:
    """Who holds a connection need not open another."""
    with closing(sqlite3.connect(sound.removeprefix("sqlite:///"))) as db:
        assert list(audit(db, vocabulary=WORDS)) == []


async def test_a_program_may_name_a_cause_of_another_system(sound: str) -> None:
    """A causation id that is kept elsewhere is no finding, unless a brain had a hand in that correlation."""
    async with await open_store(sound) as store:
        await appended(store, event("shop", correlation_id="shop", causation_id="an order in another system"))
        assert await audited(sound) == []
        await appended(store, event("run", correlation_id="run", causation_id="an order in another system"))
    assert [found.code for found in await audited(sound)] == ["cause-missing"]


async def test_a_log_in_use_is_audited_as_of_one_moment(sound: str) -> None:
    """What is appended while the auditor reads does not confuse it."""
    async with await open_store(sound) as store, asyncio.TaskGroup() as tasks:
        audits = [tasks.create_task(audited(sound)) for _ in range(3)]
        while not all(one.done() for one in audits):
            await fill(store, 50, correlation_id="run", stream="busy")
        assert [await one for one in audits] == [[], [], []]


def test_there_must_be_something_to_audit(tmp_path: Path) -> None:
    """A missing file is an error, not a clean bill."""
    with pytest.raises(StoreUnavailable, match="no such file"):
        list(audit(str(tmp_path / "nothing.db")))


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    """What SQLite cannot read is a finding that says so."""
    path = tmp_path / "hive.db"
    path.write_bytes(b"garbage " * 1000)
    (found,) = audit(str(path))
    assert found.code == "file-damaged"
    assert "file-damaged" in str(found)


# Each corruption: its name, the statements that plant it, and the findings that must name it (no others).
PLANTED: dict[str, tuple[list[str], set[str]]] = {
    "a lost event": (["DELETE FROM events WHERE position = 3"], {"position-gap"}),
    "a lost beginning": (
        ["DELETE FROM events WHERE position = 1"],
        {"position-gap", "version-gap", "cause-missing", "cause-position"},
    ),
    "time that falls": (["UPDATE events SET recorded_at = recorded_at - 99999999 WHERE position = 5"], {"time-falls"}),
    "an append that begins elsewhere": (["UPDATE events SET append_first = 2 WHERE position = 5"], {"append-first"}),
    "a version left out": (["UPDATE events SET version = 9 WHERE stream = 'run' AND version = 2"], {"version-gap"}),
    "an id twice": (
        ["UPDATE events SET event_id = (SELECT event_id FROM events WHERE position = 2) WHERE position = 4"],
        {"id-twice"},
    ),
    "another payload": (["UPDATE events SET payload = '{\"n\":2}' WHERE position = 4"], {"digest"}),
    "another body": (["UPDATE blobs SET body = substr(body, 2)"], {"digest"}),
    "a lost body": (["DELETE FROM blobs"], {"blob-missing"}),
    "an unknown cause": (
        ["UPDATE events SET causation_id = 'nobody' WHERE topic = 'note.requested'"],
        {"cause-missing", "cause-position"},
    ),
    "a cause that comes later": (
        ["UPDATE events SET causation_id = (SELECT event_id FROM events WHERE position = 9) WHERE position = 4"],
        {"cause-after"},
    ),
    "another cause position": (
        ["UPDATE events SET cause_position = 2 WHERE topic = 'note.requested'"],
        {"cause-position"},
    ),
    "an unlisted topic": (["DELETE FROM topics WHERE topic = 'mail.sent'"], {"topic-unlisted"}),
    "an epoch that is not listed": (["UPDATE log_meta SET epoch = 2"], {"epoch"}),
    "epochs out of order": (
        ["INSERT INTO epochs VALUES (2, 'x', 0, 0, 'test')", "UPDATE log_meta SET epoch = 2"],
        {"epoch"},
    ),
    "a second identity": (["DELETE FROM log_meta"], {"log-identity"}),
    "an open maintenance session": (["INSERT INTO maintenance VALUES ('s', 'r', 0)"], {"maintenance-open"}),
    "a checkpoint beyond the head": (
        ["UPDATE partitions SET position = 99 WHERE number = 1"],
        {"checkpoint-beyond-head"},
    ),
    "a lost partition": (["DELETE FROM partitions WHERE number = 1"], {"partitions"}),
    "an owner without a fence": (["UPDATE partitions SET fence = 0"], {"fence"}),
    "a key parked ahead": (["UPDATE parked SET from_position = 9"], {"parked"}),
    "a key parked nowhere": (["UPDATE parked SET number = 7"], {"parked"}),
    "a key parked with a negative attempt": (["UPDATE parked SET attempt = -1"], {"parked"}),
    "a closed owner": (["UPDATE leases SET closed_at = 1 WHERE owner = 'worker'"], {"lease-holds"}),
    "an unknown owner": (["DELETE FROM leases WHERE owner = 'worker'"], {"lease-holds"}),
    "rows of a view that overlap": (
        ["UPDATE view_rows SET until_position = 8 WHERE from_position = 3"],
        {"view-overlap"},
    ),
    "a view that ends before it begins": (
        ["UPDATE view_rows SET until_position = 2 WHERE from_position = 3"],
        {"view-overlap"},
    ),
    "a view beyond the head": (
        ["UPDATE view_rows SET from_position = 99, until_position = 100 WHERE from_position = 6"],
        {"view-beyond-head"},
    ),
    "an item without its intent": (["UPDATE work SET work_id = 'nobody'"], {"work-without-intent", "intent-lost"}),
    "an item of another run": (["UPDATE work SET correlation_id = 'other'"], {"work-differs"}),
    "an item held by nobody": (["UPDATE work SET lease_id = NULL"], {"work-state"}),
    "more attempts than owners": (["UPDATE work SET attempt = 5"], {"work-state"}),
    "a lost item": (["DELETE FROM work"], {"intent-lost"}),
    "a lost result": (["UPDATE events SET topic = 'thing.happened' WHERE topic = 'mail.sent'"], {"intent-lost"}),
    "a result twice": (
        [
            "INSERT INTO topics VALUES ('mail.failed')",
            "UPDATE events SET topic = 'mail.failed' WHERE topic = 'mail.attempt_failed'",
        ],
        {"result-twice", "claim-after-end"},
    ),
    "a result while the item is open": (
        [
            "UPDATE events SET topic = 'mail.sent' WHERE topic = 'mail.started' AND causation_id IN (SELECT work_id FROM work)"
        ],
        {"ended-but-open"},
    ),
    "a result of nothing": (
        ["UPDATE events SET causation_id = (SELECT event_id FROM events WHERE position = 1) WHERE topic = 'mail.sent'"],
        {"result-without-intent", "intent-lost"},
    ),
    "two attempts at once": (
        ["UPDATE events SET topic = 'thing.happened' WHERE topic = 'mail.attempt_failed'"],
        {"claim-overlaps"},
    ),
    "more starts than attempts": (
        ["UPDATE work SET attempt = 0, state = 'ready', lease_id = NULL, claimed_at = NULL"],
        {"claims"},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_corruption_is_named(sound: str, name: str) -> None:
    """Written straight into the database, without its constraints; the auditor says which invariant is broken."""
    statements, codes = PLANTED[name]
    await asyncio.to_thread(plant, sound, statements)
    findings = await audited(sound)
    assert {found.code for found in findings} == codes, list(map(str, findings))
    assert all(found.code in str(found) and found.expected and found.actual for found in findings)


def plant(url: str, statements: Sequence[str]) -> None:
    """Take the constraints of the log away, for a corruption does not ask for permission; then change something."""
    address = parse(url)
    if isinstance(address, SqliteUrl):
        with closing(sqlite3.connect(address.path)) as db, db:
            for statement in UNPROTECT_SQLITE:
                db.execute(statement)
            for statement in statements:
                assert db.execute(statement).rowcount > 0, statement
        return
    with Session(address) as session:
        session.execute(UNPROTECT_POSTGRES)
        for statement in statements:
            assert not session.execute(statement).endswith(" 0"), statement


UNPROTECT_SQLITE = (
    "ALTER TABLE events RENAME TO protected",
    "CREATE TABLE events AS SELECT * FROM protected",
    "DROP TRIGGER events_no_delete",
    "DROP TABLE protected",
)
UNPROTECT_POSTGRES = """
ALTER TABLE events DISABLE TRIGGER USER;
ALTER TABLE events DROP CONSTRAINT events_pkey, DROP CONSTRAINT events_event_id, DROP CONSTRAINT events_stream_version;"""
