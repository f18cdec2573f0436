"""doctor, of a PostgreSQL server: is it one that a hive can rely on, and has it room for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dashboard.cli.health import Check
from dashboard.cli.text import duration

if TYPE_CHECKING:
    from hive_core_db.admin.server import Server

_OLDEST_VERSION: Final = 140000
_FAR: Final = 5_000
"""A round trip above this many microseconds is worth a note: every append takes one."""
_APART: Final = 5_000_000
"""Clocks that differ by more than this many microseconds: people would be misled, the hive is not."""
_LONG: Final = 600.0
"""A transaction that has been open for more than so many seconds."""


def server_checks(server: Server) -> Iterator[Check]:
    """What is good and what is not about a server."""
    yield _version(server)
    if server.encoding != "UTF8":
        yield Check(
            name="encoding",
            level="problem",
            found=f"the database's is {server.encoding}: it cannot hold every text",
            remedy="CREATE DATABASE hive ENCODING 'UTF8' TEMPLATE template0, and name that",
        )
    if not server.may_write:
        yield Check(
            name="rights",
            level="problem",
            found=f"the role {server.role} may not {'append' if server.has_log else 'make tables'} there",
            remedy="let it own the schema of the hive's tables: ALTER SCHEMA ... OWNER TO ...",
        )
    yield _isolation(server)
    yield _durability(server)
    yield _distance(server)
    yield _clock(server)
    yield _connections(server)
    if server.oldest_transaction > _LONG:
        yield Check(
            name="transactions",
            level="note",
            found=f"one has been open for {duration(server.oldest_transaction)}: vacuum removes nothing that it may still see",
            remedy="look for it in pg_stat_activity by its xact_start, and end it if nobody needs it",
        )


def _version(server: Server) -> Check:
    if server.version_number < _OLDEST_VERSION:
        return Check(
            name="server", level="problem", found=f"PostgreSQL {server.version}", remedy="use PostgreSQL 14 or later"
        )
    if server.standby:
        return Check(
            name="server",
            level="problem",
            found=f"PostgreSQL {server.version}, a standby: it takes no writes",
            remedy="name the primary, or a proxy that knows it",
        )
    checksums = "" if server.checksums == "on" else ", without data checksums"
    return Check(
        name="server", level="ok", found=f"PostgreSQL {server.version}, {'TLS' if server.tls else 'no TLS'}{checksums}"
    )


def _isolation(server: Server) -> Check:
    if server.isolation == "read committed":
        return Check(name="isolation", level="ok", found="read committed")
    return Check(
        name="isolation",
        level="problem",
        found=f"{server.isolation} by default: it would judge by what was true before it waited",
        remedy="ALTER DATABASE ... SET default_transaction_isolation = 'read committed'",
    )


def _durability(server: Server) -> Check:
    settings = {
        "fsync": server.fsync, "full_page_writes": server.full_page_writes, "synchronous_commit": server.synchronous_commit,
    }  # fmt: skip
    off = [name for name, value in settings.items() if value == "off"]
    if not off:
        return Check(
            name="durability", level="ok", found=", ".join(f"{name} {value}" for name, value in settings.items())
        )
    return Check(
        name="durability",
        level="problem",
        found=f"{' and '.join(off)} off: what was reported as stored may be lost, or torn",
        remedy="switch it on; only tests can do without",
    )


def _distance(server: Server) -> Check:
    found = f"{server.round_trip / 1000:.2f} ms to the server and back"
    if server.round_trip <= _FAR:
        return Check(name="round trip", level="ok", found=found)
    return Check(
        name="round trip",
        level="note",
        found=f"{found}: one caller that waits for each event stores at most {1_000_000 // server.round_trip} a second",
        remedy="run the hive nearer to its database; many callers at once are not held up",
    )


def _clock(server: Server) -> Check:
    found = (
        f"the server's is {abs(server.clock_ahead) / 1000:.1f} ms {'ahead' if server.clock_ahead >= 0 else 'behind'}"
    )
    if abs(server.clock_ahead) <= _APART:
        return Check(name="clock", level="ok", found=found)
    return Check(
        name="clock",
        level="note",
        found=f"{found}; the hive goes by the server's alone, people who compare logs do not",
        remedy="let both keep time by NTP",
    )


def _connections(server: Server) -> Check:
    found = f"{server.free} of {server.most_connections} free; a process of this address opens up to {server.wanted}"
    if server.free >= server.wanted:
        return Check(name="connections", level="ok", found=found)
    return Check(
        name="connections",
        level="problem",
        found=found,
        remedy="raise max_connections, give the address a smaller pool_size, or go through PgBouncer with pgbouncer=on",
    )
