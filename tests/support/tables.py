"""What somebody does to a hive's tables behind its back, with the database's own tools: the same words for SQLite and PostgreSQL.

Everything here blocks for some milliseconds; an async test that has much to do calls it by ``asyncio.to_thread``.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hive_core_db.url import SqliteUrl, parse
from tests.support.patience import WITHIN
from tests.support.postgres import binaries, psql, with_database


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite address, None for a PostgreSQL one."""
    address = parse(url)
    return address.path if isinstance(address, SqliteUrl) else None


def sqlite_url(url: str) -> SqliteUrl:
    """Return a SQLite address, taken apart."""
    address = parse(url)
    assert isinstance(address, SqliteUrl)
    return address


def change(url: str, *statements: str) -> None:
    """Run statements in one transaction, as any program may that has the address."""
    path = file_of(url)
    if path is None:
        psql(url, "\n".join(["BEGIN;", *(f"{one};" for one in statements), "COMMIT;"]))
        return
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def tamper(url: str, *statements: str) -> None:
    """Run statements in one transaction, with the triggers that guard the log out of the way."""
    path = file_of(url)
    if path is None:
        change(url, "SET LOCAL session_replication_role = replica", *statements)
        return
    with closing(sqlite3.connect(path)) as db:
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    change(url, *(f"DROP TRIGGER {trigger}" for (trigger,) in triggers), *statements)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds; numbers are numbers and texts are texts on both databases."""
    path = file_of(url)
    if path is None:
        found = psql(url, f"SELECT coalesce(json_agg(row_to_json(found)), '[]') FROM ({query}) AS found")
        return [tuple(row.values()) for row in json.loads(found)]
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def dump(url: str) -> str:
    """Return everything that the database holds, as SQL text."""
    path = file_of(url)
    if path is None:
        command = [str(binaries(18) / "pg_dump"), "--inserts", "-d", url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=WITHIN).stdout
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


def copy(url: str) -> str:
    """Copy a database that nobody has open; returns the address of the copy, which lies beside the original and goes with it."""
    path = file_of(url)
    if path is None:
        name = urlsplit(url).path[1:]
        psql(with_database(url, "postgres"), f"CREATE DATABASE {name}_copy_{os.getpid()} TEMPLATE {name};")
        return with_database(url, f"{name}_copy_{os.getpid()}")
    target = path.with_name(f"{path.stem}-copy.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
    return f"sqlite:///{target}"
