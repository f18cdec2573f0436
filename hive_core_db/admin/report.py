"""What administration reports: plain values for `hive db`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[str, int, int], None]
"""Called with what is copied or compared, how many of its rows are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an upgrade did: the revision before (None: the database was empty) and after."""

    url: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What the database's own structures say of themselves: what was looked at, and what is wrong (nothing: it is sound)."""

    url: str
    looked_at: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a database holds: rows per table, the head, and sizes in bytes.

    ``sizes`` and ``indexes`` are bytes per table and per index, ``dead`` row versions that vacuum has not removed yet
    (SQLite has none, and says sizes only where it was built to). ``file_size`` is the whole file or database,
    ``wal_size`` SQLite's write-ahead log (0 elsewhere: PostgreSQL's belongs to the server).
    """

    url: str
    name: str
    log_id: str
    epoch: int
    head: int
    revision: str
    rows: dict[str, int]
    file_size: int
    wal_size: int
    sizes: dict[str, int] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied: rows per table, the head, the log's id, and the digest that both sides agree on."""

    source: str
    target: str
    log_id: str
    head: int
    rows: dict[str, int]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A copy of a database in one file: the head that it holds, and its size in bytes."""

    url: str
    file: str
    head: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database that was put back: the head that it has now, its new epoch and where that begins."""

    url: str
    file: str
    head: int
    epoch: int
    first_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch that was begun by hand: its number, and where it begins."""

    url: str
    epoch: int
    first_position: int
