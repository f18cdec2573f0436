"""Checks of the log: positions, times, versions, ids, digests, causes, topics, identity."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby, pairwise

from hive_core_db.audit.finding import Finding, at, fact
from hive_core_db.audit.snapshot import Snapshot


def positions(db: Snapshot) -> Iterator[Finding]:
    """Positions are contiguous (numbers jump at an epoch's start only), time never falls, appends lie together."""
    starts = {row[0] for row in db.rows("SELECT first_position FROM epochs")}
    first = next(db.rows("SELECT min(first_position) FROM log_meta"))[0] or 1
    previous, recorded, opening = first - 1, 0, 0
    for position, time, append_first in db.rows(
        "SELECT position, recorded_at, append_first FROM events ORDER BY position"
    ):
        if position != previous + 1 and position not in starts:
            yield at("position-gap", position, "a position is missing", f"{previous + 1}", f"{position}")
        if time < recorded:
            yield at(
                "time-falls", position, "it was recorded before its predecessor", f"at least {recorded}", f"{time}"
            )
        if append_first not in {position, opening}:
            expected = f"{position} or {opening}"
            yield at("append-first", position, "its append does not begin where it says", expected, f"{append_first}")
        previous, recorded, opening = position, time, append_first


def identity(db: Snapshot) -> Iterator[Finding]:
    """The log has one identity; its epoch is the last one listed, and epochs begin one behind the other."""
    metas = list(db.rows("SELECT epoch, first_position FROM log_meta"))
    if len(metas) != 1:
        yield fact("log-identity", "log_meta", "the log has not one identity", "1 row", f"{len(metas)} rows")
        return
    epochs = list(db.rows("SELECT epoch, first_position FROM epochs ORDER BY epoch"))
    if not epochs or epochs[-1][0] != metas[0][0]:
        last = epochs[-1][0] if epochs else "none"
        yield fact("epoch", "log_meta", "the present epoch is not the last one listed", f"{last}", f"{metas[0][0]}")
    for (_, before), (epoch, begins) in pairwise(epochs):
        if begins < before:
            yield fact("epoch", f"epoch {epoch}", "it begins before its predecessor", f"at least {before}", f"{begins}")
    for (session,) in db.rows("SELECT session FROM maintenance"):
        yield fact(
            "maintenance-open", session, "a maintenance session was left open: events can be changed", "none", session
        )


def versions(db: Snapshot) -> Iterator[Finding]:
    """A stream's versions are 1, 2, 3 in the order of positions."""
    rows = db.rows("SELECT stream, version, position FROM events ORDER BY stream, position")
    for stream, events in groupby(rows, key=lambda row: row[0]):
        for expected, (_, version, position) in enumerate(events, start=1):
            if version != expected:
                yield at(
                    "version-gap", position, f"versions of stream {stream} have a gap", f"{expected}", f"{version}"
                )
                break


def ids(db: Snapshot) -> Iterator[Finding]:
    """An event id is in the log once."""
    query = "SELECT event_id, min(position), count(*) FROM events GROUP BY event_id HAVING count(*) > 1"
    for event_id, position, count in db.rows(query):
        yield at("id-twice", position, f"event id {event_id} is in the log more than once", "1", f"{count}")


def digests(db: Snapshot) -> Iterator[Finding]:
    """A digest is that of the payload, in the row or in a blob; what events name is there."""
    query = f"""
    SELECT e.position, e.event_id, e.digest, {db.bytes_of.format("e.payload")}, b.digest
    FROM events AS e LEFT JOIN blobs AS b ON e.payload IS NULL AND b.digest = e.digest ORDER BY e.position"""
    for position, event_id, digest, payload, blob in db.rows(query):
        if payload is None:
            if blob is None:
                what = f"the payload of {event_id} lies in a blob that is gone"
                yield at("blob-missing", position, what, digest, "nothing")
        elif (actual := sha256(payload).hexdigest()) != digest:
            yield at("digest", position, f"the payload of {event_id} is not the one that was recorded", digest, actual)
    # One body at a time: each may have megabytes.
    for (digest,) in db.rows("SELECT digest FROM blobs"):
        (body,) = next(db.rows("SELECT body FROM blobs WHERE digest = ?", digest))
        if (actual := sha256(body).hexdigest()) != digest:
            yield fact("digest", f"blob {digest}", "the body is not the one that was stored", digest, actual)
    query = "SELECT DISTINCT digest, position FROM blob_refs AS r WHERE NOT EXISTS (SELECT 1 FROM blobs AS b WHERE b.digest = r.digest)"
    for digest, position in db.rows(query):
        yield at("blob-missing", position, "a blob that events name is gone", digest, "nothing")


def causes(db: Snapshot) -> Iterator[Finding]:
    """A cause is in the log and lies before; a decision's cause position is its cause's.

    Where no brain ever decided anything, a program may name a cause that another system keeps.
    """
    query = """
    WITH decided AS (SELECT DISTINCT correlation_id FROM events WHERE decided_by IS NOT NULL)
    SELECT e.position, e.causation_id, e.cause_position, e.decided_by, c.position,
           e.correlation_id IN (SELECT correlation_id FROM decided)
    FROM events AS e LEFT JOIN events AS c ON c.event_id = e.causation_id
    WHERE e.causation_id IS NOT NULL OR e.cause_position IS NOT NULL OR e.decided_by IS NOT NULL ORDER BY e.position"""
    for position, cause, named, decided_by, actual, own in db.rows(query):
        if actual is None and not own:
            continue
        if actual is None:
            yield at("cause-missing", position, "its cause is not in the log", f"event {cause}", "nothing")
        elif actual >= position:
            yield at("cause-after", position, "its cause does not lie before it", f"below {position}", f"{actual}")
        if (named is not None or decided_by is not None) and named != actual:
            yield at("cause-position", position, "the position of its cause is another", f"{actual}", f"{named}")


def topics(db: Snapshot) -> Iterator[Finding]:
    """Every topic that the log holds is in the table that patterns are expanded from."""
    query = "SELECT topic, min(position) FROM events WHERE topic NOT IN (SELECT topic FROM topics) GROUP BY topic"
    for topic, position in db.rows(query):
        yield at("topic-unlisted", position, f"topic {topic} is not in the table of topics", topic, "nothing")
