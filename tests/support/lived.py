"""A database in which a little of everything happened: events, bodies, effects, groups, parked keys, leases, views."""

from __future__ import annotations

import asyncio
from typing import Any

from hive_core_db.audit import Finding, Vocabulary, audit
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


async def audited(url: str, vocabulary: Any = WORDS) -> list[Finding]:
    """Return what the auditor finds, beside the loop: it blocks."""
    return await asyncio.to_thread(lambda: list(audit(url, vocabulary=vocabulary)))
