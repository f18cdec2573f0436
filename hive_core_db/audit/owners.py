"""Checks of what is kept beside the log: checkpoints, parked keys, leases, views."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from hive_core_db.audit.finding import Finding, at, fact
from hive_core_db.audit.snapshot import Snapshot


def checkpoints(db: Snapshot) -> Iterator[Finding]:
    """A group has the partitions that it was made with; no checkpoint is beyond the head; who holds one has a fence."""
    last = _head(db)
    for group, wanted in db.rows("SELECT group_name, partitions FROM consumer_groups"):
        found = [row[0] for row in db.rows("SELECT number FROM partitions WHERE group_name = ? ORDER BY number", group)]
        if found != list(range(wanted)):
            yield fact(
                "partitions",
                f"group {group}",
                "its partitions are not those it was made with",
                f"0 to {wanted - 1}",
                f"{found}",
            )
    for group, number, position, lease, fence in db.rows(
        "SELECT group_name, number, position, lease_id, fence FROM partitions"
    ):
        subject = f"partition {number} of group {group}"
        if not 0 <= position <= last:
            yield fact(
                "checkpoint-beyond-head", subject, "its checkpoint is not in the log", f"0 to {last}", f"{position}"
            )
        if lease is not None and fence < 1:
            yield fact("fence", subject, "it is held and was never taken", "a fence of 1 or more", f"{fence}")


def parked(db: Snapshot) -> Iterator[Finding]:
    """A parked key waits behind its partition's checkpoint, in a partition that exists."""
    query = """
    SELECT k.group_name, k.key, k.number, k.from_position, k.attempt, p.position
    FROM parked AS k LEFT JOIN partitions AS p ON p.group_name = k.group_name AND p.number = k.number"""
    for group, key, number, begins, attempt, checkpoint in db.rows(query):
        subject = f"key {key} of group {group}"
        if checkpoint is None:
            yield fact(
                "parked", subject, "it is parked in a partition that does not exist", f"partition {number}", "nothing"
            )
        elif not 1 <= begins <= checkpoint:
            yield fact(
                "parked",
                subject,
                "it waits for events that its partition has not passed",
                f"1 to {checkpoint}",
                f"{begins}",
            )
        if attempt < 0:
            yield fact("parked", subject, "its attempt is no count", "0 or more", f"{attempt}")


def leases(db: Snapshot) -> Iterator[Finding]:
    """A closed lease holds no partition and is no member; work that it took was taken before it closed."""
    query = """
    SELECT 'partition ' || number || ' of group ' || group_name, p.lease_id, l.lease_id, l.closed_at FROM partitions AS p
    LEFT JOIN leases AS l ON l.lease_id = p.lease_id WHERE p.lease_id IS NOT NULL
    UNION ALL SELECT 'membership of group ' || group_name, m.lease_id, l.lease_id, l.closed_at FROM members AS m
    LEFT JOIN leases AS l ON l.lease_id = m.lease_id"""
    for subject, lease, known, closed in db.rows(query):
        if known is None or closed is not None:
            state = "a closed one" if known else "an unknown one"
            yield fact("lease-holds", subject, f"lease {lease} holds it", "an open lease", state)
    query = """
    SELECT w.work_id, w.position, w.lease_id, w.claimed_at, l.lease_id, l.closed_at FROM work AS w
    LEFT JOIN leases AS l ON l.lease_id = w.lease_id WHERE w.lease_id IS NOT NULL"""
    for work_id, position, lease, claimed, known, closed in db.rows(query):
        if known is None:
            yield at(
                "lease-holds", position, f"item {work_id} is claimed by a lease that never was", "a known lease", lease
            )
        elif closed is not None and claimed is not None and claimed > closed:
            yield at(
                "lease-holds",
                position,
                f"item {work_id} was claimed by a closed lease",
                f"before {closed}",
                f"{claimed}",
            )


def views(db: Snapshot) -> Iterator[Finding]:
    """A document's rows do not overlap, and none begins or ends beyond the head."""
    last = _head(db)
    rows = db.rows(
        "SELECT view, version, key, from_position, until_position FROM view_rows ORDER BY view, version, key, from_position"
    )
    for (view, version, key), spans in groupby(rows, key=lambda row: row[:3]):
        subject = f"document {key} of view {view}, version {version}"
        free: int | None = 0
        for _, _, _, begins, until in spans:
            if free is None or begins < free:
                yield fact(
                    "view-overlap",
                    subject,
                    "two rows hold at one position",
                    f"from {free or 'the open end'}",
                    f"{begins}",
                )
            if until is not None and until <= begins:
                yield fact("view-overlap", subject, "a row ends before it begins", f"above {begins}", f"{until}")
            if max(begins, until or 0) > last:
                yield fact(
                    "view-beyond-head", subject, "it knows events that are not there", f"at most {last}", f"{begins}"
                )
            free = until


def _head(db: Snapshot) -> int:
    last: int = next(db.rows("SELECT coalesce(max(position), 0) FROM events"))[0]
    return last
