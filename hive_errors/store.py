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


@dataclass(eq=False, kw_only=True)
class StoreBusy(StoreError):
    """Another program kept the database locked for longer than the busy timeout; nothing was written."""

    code = "HIVE-STORE-006"
    retryable = True
    sentence = "{url} was locked by another program for {waited} s"
    hint = "look for a program that holds the file (a backup, a database browser), close it, and repeat"

    url: str
    waited: float


@dataclass(eq=False, kw_only=True)
class StoreFull(StoreError):
    """There is no room left for what should be written; the whole batch was rolled back."""

    code = "HIVE-STORE-007"
    retryable = True
    sentence = "no space left to write to {url}: {reason}"
    hint = "make room on the file system; the store goes on by itself"

    url: str
    reason: str


@dataclass(eq=False, kw_only=True)
class PayloadTooLarge(StoreError):
    """A body is larger than the log keeps, even as a blob."""

    code = "HIVE-STORE-008"
    sentence = "{field} has {size} bytes, more than the limit of {limit}"
    hint = "write the body to a file or an object store and publish its address"

    field: str
    size: int
    limit: int


@dataclass(eq=False, kw_only=True)
class SchemaOutdated(StoreError):
    """The database was made by an older version and must be upgraded first."""

    code = "HIVE-STORE-009"
    sentence = "{url} has schema revision {found}, this version needs {wanted}"
    hint = "stop what uses it, then run `hive db upgrade`"

    url: str
    found: str
    wanted: str


@dataclass(eq=False, kw_only=True)
class SchemaTooNew(StoreError):
    """The database was written by a newer version than this one."""

    code = "HIVE-STORE-010"
    sentence = "{url} has schema revision {found}, which this version (it knows {wanted}) cannot read"
    hint = "install the newer version of hive-orchestrator that wrote it"

    url: str
    found: str
    wanted: str


@dataclass(eq=False, kw_only=True)
class NotADatabase(StoreError):
    """The file is not a hive's database."""

    code = "HIVE-STORE-011"
    sentence = "{url} is not a hive's database: {reason}"
    hint = "name another file or schema (`?schema=hive`) with HIVE_DB, or move this one away"

    url: str
    reason: str


@dataclass(eq=False, kw_only=True)
class UnsupportedUrl(StoreError):
    """The address names a kind of database that this version does not have."""

    code = "HIVE-STORE-012"
    sentence = "database address {url!r}: {reason}"
    hint = "use {supported}"

    url: str
    reason: str
    supported: str


@dataclass(eq=False, kw_only=True)
class StoreForked(StoreError):
    """A connection crossed a fork; used on both sides it would destroy the file."""

    code = "HIVE-STORE-013"
    sentence = "{url} was opened by process {opened_by} and used by process {used_by}"
    hint = "open the store after the fork, in the process that uses it"

    url: str
    opened_by: int
    used_by: int


@dataclass(eq=False, kw_only=True)
class StoreClosed(StoreError):
    """The store was closed before this call."""

    code = "HIVE-STORE-014"
    sentence = "{url} is closed"
    hint = "use the store inside the block that opened it"

    url: str


@dataclass(eq=False, kw_only=True)
class StoreUnavailable(StoreError):
    """The database cannot be opened, read or written as it is."""

    code = "HIVE-STORE-015"
    sentence = "cannot use {url}: {reason}"
    hint = "check that the directory exists and that this user may write to it, then run `hive doctor`"

    url: str
    reason: str


@dataclass(eq=False, kw_only=True)
class ValueRefused(StoreError):
    """A value of a request cannot be stored; the request was left out, its neighbours were not."""

    code = "HIVE-STORE-016"
    sentence = "the request cannot be stored: {reason}"
    hint = "check the fields of the event against what the log keeps: text without lone surrogates, integers of 64 bits"

    reason: str


@dataclass(eq=False, kw_only=True)
class StoreUnreachable(StoreUnavailable):
    """The database server does not answer, or its connection was lost; what was under way is committed whole or not at all."""

    code = "HIVE-STORE-017"
    retryable = True
    hint = "check that the server runs and is reachable from here; the store connects again by itself"


@dataclass(eq=False, kw_only=True)
class ServerUnsuitable(StoreError):
    """The database server cannot hold a log as it is: too old, or set up in a way that breaks a promise."""

    code = "HIVE-STORE-018"
    sentence = "{url} cannot hold a log: {reason}"
    hint = "{advised}"

    url: str
    reason: str
    advised: str


@dataclass(eq=False, kw_only=True)
class DriverMissing(StoreError):
    """The database is of a kind whose driver is not installed."""

    code = "HIVE-STORE-019"
    sentence = "{url} needs the package {package}, which is not installed"
    hint = "pip install '{extra}'"

    url: str
    package: str
    extra: str


@dataclass(eq=False, kw_only=True)
class TargetNotEmpty(StoreError):
    """A copy or a backup is only ever written to a place that is new or empty."""

    code = "HIVE-STORE-020"
    sentence = "{url} is not empty: {reason}"
    hint = "name a new place, or remove what is there if nobody needs it any more"

    url: str
    reason: str


@dataclass(eq=False, kw_only=True)
class CopyDiffers(StoreError):
    """What was read back from a copy is not what was written to it; the copy must not be used."""

    code = "HIVE-STORE-021"
    sentence = "the copy at {url} differs from its source in {table}: expected {expected}, found {actual}"
    hint = "remove the copy, run `hive db check` and `hive audit` on the source, and copy again"

    url: str
    table: str
    expected: str
    actual: str


@dataclass(eq=False, kw_only=True)
class EpochOver(StoreError):
    """The log began a new epoch: its database was restored, copied or promoted, and this process belongs to the one before."""

    code = "HIVE-STORE-022"
    sentence = "{url} began a new epoch: this process is of epoch {held}, the log is at epoch {actual}"
    hint = "start this process again: what it knew may be lost; `hive events system.epoch_started` says why"

    url: str
    held: int
    actual: int


@dataclass(eq=False, kw_only=True)
class DoneElsewhere(StoreError):
    """This is done by the database's own tools."""

    code = "HIVE-STORE-023"
    sentence = "{action} is not done by the hive for {url}"
    hint = "use {tools}; docs/operations.md shows how, and what the hive does afterwards"

    action: str
    url: str
    tools: str


@dataclass(eq=False, kw_only=True)
class StoreRefused(StoreUnavailable):
    """The database server answers, and refuses: this user, this database, these TLS settings, or what was asked of it."""

    code = "HIVE-STORE-024"
    hint = "{advised}"

    advised: str


@dataclass(eq=False, kw_only=True)
class StatementEnded(StoreBusy):
    """The database server gave a statement up before it was done, by a time limit of its own or by a word of its administrator."""

    code = "HIVE-STORE-025"
    sentence = "the server of {url} ended a statement: {reason}"
    hint = "set statement_timeout, lock_timeout and transaction_timeout to 0 for the hive's role, or ask who cancelled it, and repeat"

    reason: str
