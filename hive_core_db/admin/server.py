"""What a PostgreSQL server says of itself, as far as it matters to a hive. For `hive doctor`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Final

from hive_core_db.postgres.session import Session
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import UnsupportedUrl

_ROUND_TRIPS: Final = 9
# Appends have two connections, wake-ups one to send and one to hear.
KEPT: Final = 4
SERVER: Final = """
SELECT current_setting('server_version'), current_setting('server_version_num')::integer,
    current_setting('default_transaction_isolation'), current_setting('synchronous_commit'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('data_checksums'), current_setting('max_connections')::integer,
    current_setting('superuser_reserved_connections')::integer, (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), pg_is_in_recovery(),
    to_regclass('log_meta') IS NOT NULL,
    CASE WHEN to_regclass('events') IS NOT NULL THEN has_table_privilege(to_regclass('events'), 'INSERT')
        WHEN current_schema() IS NULL THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_schema_privilege(current_schema(), 'CREATE') END, current_user, current_setting('server_encoding')"""
CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# What keeps dead rows from being removed: how long the oldest transaction has been open, in seconds.
OLDEST: Final = """
SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::double precision
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server as seen from here.

    ``round_trip`` and ``clock_ahead`` are microseconds (the clock's: how far the server's is before this machine's, exact to half a
    round trip), ``oldest_transaction`` seconds. ``free`` connections are what this user may still open, ``wanted`` what one hive process opens. ``may_write``: the
    role may append where there is a log, and make tables where there is none.
    """

    url: str
    version: str
    version_number: int
    isolation: str
    synchronous_commit: str
    fsync: str
    full_page_writes: str
    checksums: str
    most_connections: int
    free: int
    wanted: int
    tls: bool
    standby: bool
    has_log: bool
    may_write: bool
    role: str
    encoding: str
    round_trip: int
    clock_ahead: int
    oldest_transaction: float


def examine(url: str) -> Server:
    """Ask the server behind a PostgreSQL address how it is.

    Raises:
        UnsupportedUrl: The address is another database's.
        DriverMissing, StoreUnreachable, StoreUnavailable: It does not answer this user.
    """
    address = parse(url)
    if not isinstance(address, PostgresUrl):
        raise UnsupportedUrl(url=url, reason="it has no server", supported="a postgresql:// address")
    with Session(address) as session:
        session.fetch(CLOCK)  # the first one is also prepared
        trips = []
        for _ in range(_ROUND_TRIPS):
            asked = time.time_ns()
            ((server,),) = session.fetch(CLOCK)
            answered = time.time_ns()
            trips.append((answered - asked, server - (asked + answered) // 2000))
        row = session.fetch(SERVER)[0]
        ((oldest,),) = session.fetch(OLDEST)
    most, reserved, used = row[7], row[8], row[9]
    return Server(
        url=str(address),
        version=row[0],
        version_number=row[1],
        isolation=row[2],
        synchronous_commit=row[3],
        fsync=row[4],
        full_page_writes=row[5],
        checksums=row[6],
        most_connections=most,
        free=most - reserved - used + 1,
        wanted=address.pool_size + (KEPT if address.listen else KEPT - 1),
        tls=bool(row[10]),
        standby=row[11],
        has_log=row[12],
        may_write=row[13],
        role=row[14],
        encoding=row[15],
        round_trip=round(median(trip for trip, _ in trips) / 1000),
        clock_ahead=min(trips)[1],
        oldest_transaction=oldest,
    )
