"""The auditor finds nothing in a sound file, and names each planted corruption."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hive_core_db.audit import Vocabulary, audit
from hive_core_db.engine import open_store
from hive_core_db.records import (
    CheckpointMove,
    NewEvent,
    ParkKey,
    ViewWrite,
    WorkClaim,
    WorkEnd,
    WorkInsert,
    WorkRetry,
)
from hive_core_db.store import Store
from hive_errors.store import StoreUnavailable
from tests.contract.making import appended, event, fill

RESULTS = {"mail.requested": ("mail.sent", "mail.failed"), "note.requested": ("note.kept",)}
WORDS = Vocabulary(
    results=RESULTS,
    starts={"mail.started"},
    retries={"mail.attempt_failed"},
    queued=lambda topic, payload: topic != "note.requested" or "later" in payload,
)
LARGE = '"' + "x" * 70_000 + '"'


def of(intent: NewEvent, topic: str) -> NewEvent:
    """Return an event of an intent's life."""
    return event("mail", topic=topic, causation_id=intent.event_id, correlation_id="run")


def intended(cause: NewEvent, position: int, topic: str = "mail.requested") -> NewEvent:
    """Return an intent that a brain decided."""
    return event(
        "mail",
        topic=topic,
        correlation_id="run",
        causation_id=cause.event_id,
        cause_position=position,
        decided_by="brain@1",
    )


async def live(store: Store) -> None:
    """Do a little of everything: events, a large body, an effect tried twice, an open one, a group, a view."""
    lease = (await store.leases.open("worker", ttl=10**7)).lease_id
    cause = event("run", correlation_id="run")
    first = (await appended(store, cause)).first
    await fill(store, 5)
    await appended(store, event("body", payload=LARGE))
    done, waiting = intended(cause, first), intended(cause, first)
    insert = WorkInsert(event_index=0, queue="q", state="ready")
    await appended(store, done, work=(insert,))
    await appended(store, waiting, intended(cause, first, "note.requested"), work=(insert,))
    name = done.event_id
    await appended(store, of(done, "mail.started"), work=(WorkClaim(work_id=name, fence=0, lease_id=lease),))
    await appended(store, of(done, "mail.attempt_failed"), work=(WorkRetry(work_id=name, fence=1, delay=0),))
    await appended(store, of(done, "mail.started"), work=(WorkClaim(work_id=name, fence=2, lease_id=lease),))
    await appended(store, of(done, "mail.sent"), work=(WorkEnd(work_id=name, fence=3),))
    claim = WorkClaim(work_id=waiting.event_id, fence=0, lease_id=lease)
    await appended(store, of(waiting, "mail.started"), work=(claim,))
    await store.checkpoints.ensure_group("g", partitions=2, start=0)
    await store.checkpoints.join("g", lease)
    partition = await store.checkpoints.take("g", 0, lease)
    assert partition is not None
    move = CheckpointMove(group="g", partition=0, position=8, lease_id=lease, fence=partition.fence)
    park = ParkKey(group="g", key="k", partition=0, from_position=5, attempt=1, retry_in=None, error="it broke")
    views = tuple(ViewWrite(view="v", version=1, key="k", position=at, body="{}") for at in (3, 6))
    await appended(store, event("run"), checkpoints=(move,), parks=(park,), views=views)
    await store.leases.close((await store.leases.open("gone", ttl=10**7)).lease_id)


@pytest.fixture
async def sound(tmp_path: Path) -> Path:
    """A file in which a little of everything happened."""
    path = tmp_path / "sound.db"
    store = await open_store(str(path))
    await live(store)
    await store.close()
    return path


async def test_a_sound_file_has_no_findings(sound: Path) -> None:
    """With the vocabulary, with only its results, and without; from an address and from a connection."""
    assert list(audit(str(sound), vocabulary=WORDS)) == []
    assert list(audit(f"sqlite:///{sound}")) == []
    db = sqlite3.connect(sound)
    # Without `queued`, an intent that never goes into the queue looks lost: only floor 3 knows better.
    assert [found.code for found in audit(db, vocabulary=RESULTS)] == ["intent-lost"]
    db.close()


async def test_a_program_may_name_a_cause_of_another_system(tmp_path: Path) -> None:
    """A causation id that is kept elsewhere is no finding, unless a brain had a hand in that correlation."""
    path = str(tmp_path / "hive.db")
    async with await open_store(path) as store:
        await live(store)
        await appended(store, event("shop", correlation_id="shop", causation_id="an order in another system"))
        assert list(audit(path, vocabulary=WORDS)) == []
        await appended(store, event("run", correlation_id="run", causation_id="an order in another system"))
    assert [found.code for found in audit(path, vocabulary=WORDS)] == ["cause-missing"]


async def test_a_log_in_use_is_audited_as_of_one_moment(tmp_path: Path) -> None:
    """What is appended while the auditor reads does not confuse it."""
    path = str(tmp_path / "hive.db")
    store = await open_store(path)
    await live(store)
    findings = audit(path, vocabulary=WORDS)
    await fill(store, 50)
    assert list(findings) == []
    await store.close()


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
    "another body": (["UPDATE blobs SET body = X'00'"], {"digest"}),
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
async def test_a_planted_corruption_is_named(sound: Path, name: str) -> None:
    """Written straight into a copy of the file, without its constraints; the auditor says which invariant is broken."""
    statements, codes = PLANTED[name]
    db = sqlite3.connect(sound)
    with db:
        unprotect(db)
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
    db.close()
    findings = list(audit(str(sound), vocabulary=WORDS))
    assert {found.code for found in findings} == codes, list(map(str, findings))
    assert all(found.code in str(found) and found.expected and found.actual for found in findings)


def unprotect(db: sqlite3.Connection) -> None:
    """Take the constraints of the log away: a corruption does not ask for permission."""
    db.execute("ALTER TABLE events RENAME TO protected")
    db.execute("CREATE TABLE events AS SELECT * FROM protected")
    db.execute("DROP TRIGGER events_no_delete")
    db.execute("DROP TABLE protected")
