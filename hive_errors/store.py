"""What can go wrong on floor 2: the log, the queue, leases, blobs and migrations."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class StoreError(HiveError):
    """The store refused or failed."""

    code = "HIVE-STORE-000"
    hint = "run `hive doctor` to see which part of the store is unwell"


@dataclass(eq=False, kw_only=True)
class StreamConflict(StoreError):
    """Another writer appended first; reload the stream and decide again."""

    code = "HIVE-STORE-001"
    retryable = True
    sentence = "stream {stream!r} is at version {actual}, not at the expected {expected}"
    hint = "read the stream again and append with the version you then see"

    stream: str
    expected: int
    actual: int


@dataclass(eq=False, kw_only=True)
class Fenced(StoreError):
    """Another owner took over, or the log began a new epoch; what this owner holds is stale."""

    code = "HIVE-STORE-002"
    sentence = "{what} is fenced: it holds fence {held}, the store is at {actual}"
    hint = "give the work up; its new owner goes on with it"

    what: str
    held: int
    actual: int


@dataclass(eq=False, kw_only=True)
class WorkEnded(StoreError):
    """The work item was ended already; a second end is refused."""

    code = "HIVE-STORE-003"
    sentence = "work item {work_id} has ended already"
    hint = "look at `hive trace {work_id}`: its result is in the log"

    work_id: str


@dataclass(eq=False, kw_only=True)
class DuplicateMismatch(StoreError):
    """An event id is in the log already, with other content."""

    code = "HIVE-STORE-004"
    sentence = "event id {event_id} is in the log already, with other content or without its companions"
    hint = "give new events new ids; repeat an old append only with exactly what it held"

    event_id: str


@dataclass(eq=False, kw_only=True)
class LogCorrupt(StoreError):
    """The log has a hole or contradicts itself; nothing may be built on it."""

    code = "HIVE-STORE-005"
    sentence = "the log is corrupt at position {position}: {reason}"
    hint = "run `hive audit`, then restore the file from a backup"

    position: int
    reason: str
