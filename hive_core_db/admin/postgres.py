"""Administration of a PostgreSQL database: upgrade, check, stats. Cold code, on a blocking session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from hive_core_db.admin.report import Check, Epoch, Stats, Upgrade
from hive_core_db.postgres import connection, identity
from hive_core_db.postgres.session import Session
from hive_core_db.postgres.upgrade import script
from hive_core_db.revision import HEAD, REVISIONS
from hive_core_db.url import PostgresUrl
from hive_errors.store import NotADatabase, SchemaTooNew, StoreError

LOG: Final = "SELECT name, log_id, epoch, (SELECT coalesce(max(position), 0) FROM events) FROM log_meta"
_OURS: Final = "SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
# Sizes are those of the main fork and of what is too large for a row; dead rows are the statistics' estimate.
TABLES: Final = f"""
SELECT c.relname, pg_table_size(c.oid), coalesce(s.n_dead_tup, 0)
FROM pg_class AS c LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.oid IN ({_OURS}) AND c.relname <> 'alembic_version' ORDER BY c.relname"""
INDEXES: Final = f"""
SELECT c.relname, pg_relation_size(c.oid), t.relname, i.indisvalid AND i.indisready, i.indexrelid, i.indpred IS NULL,
    ARRAY(SELECT quote_ident(a.attname) FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place)
          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place)
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid
WHERE i.indrelid IN ({_OURS}) AND t.relname <> 'alembic_version' ORDER BY t.relname, c.relname"""
# 'O' fires for everybody but replication, which is how the triggers are made.
TRIGGERS: Final = f"SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid IN ({_OURS}) AND NOT tgisinternal"
# Its functions are for superusers, unless somebody granted them.
AMCHECK: Final = """
SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE CASE WHEN e.extname = 'amcheck'
    THEN has_function_privilege(format('%I.bt_index_check(regclass, boolean)', n.nspname), 'execute') END"""
DATABASE_SIZE: Final = "SELECT pg_database_size(current_database())"
CHECKSUMS: Final = "SELECT current_setting('data_checksums')"
SEQUENTIAL: Final = (
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
)
BY_INDEX: Final = """
SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;
SET LOCAL enable_incremental_sort = off; SET LOCAL enable_hashagg = off; SET LOCAL max_parallel_workers_per_gather = 0"""


def upgrade(address: PostgresUrl) -> Upgrade:
    """Bring the schema to this version's revision; an empty database becomes a new log."""
    with Session(address) as session:
        session.run(connection.check_server(session.connection, address))
        session.begin()
        # Under the lock of those who make a schema: two upgrades at once are one.
        session.run(connection.lock_schema(session.connection, address))
        before = session.run(connection.revision_of(session.connection, address))
        if before is None:
            session.run(connection.make(session.connection, "hive", None))
        else:
            if before not in REVISIONS:
                raise SchemaTooNew(url=str(address), found=before, wanted=HEAD)
            session.execute(script(before))
        session.commit()
    return Upgrade(url=str(address), before=before, after=HEAD)


def check(address: PostgresUrl) -> Check:
    """Look for damage in tables and indexes, and for what somebody switched off."""
    with Session(address) as session:
        _check_schema(session, address)
        session.begin(isolation="repeatable_read", readonly=True)
        indexes = session.fetch(INDEXES)
        findings = [f"index {name} of {table} is not valid" for name, _, table, valid, *_ in indexes if not valid]
        findings += [
            f"trigger {name} is switched off: events can be changed"
            for name, enabled in session.fetch(TRIGGERS)
            if enabled != "O"
        ]
        amcheck = session.fetch(AMCHECK)
        if amcheck:
            how = f"{len(indexes)} indexes and that every row is in them, by the extension amcheck"
            findings += _by_amcheck(session, indexes, str(amcheck[0][0]))
        else:
            how = (
                f"{len(indexes)} indexes, each against its table by counting both "
                "(amcheck would look deeper: CREATE EXTENSION amcheck, and the right to use it)"
            )
            findings += _by_counts(session, indexes)
        ((checksums,),) = session.fetch(CHECKSUMS)
        pages = f"data checksums are {checksums}" + ("" if checksums == "on" else ": damage of a page may stay unseen")
    return Check(
        url=str(address), looked_at=(how, "triggers and the validity of indexes", pages), findings=tuple(findings)
    )


def stats(address: PostgresUrl) -> Stats:
    """Count what the database holds, as of one moment."""
    with Session(address) as session:
        _check_schema(session, address)
        session.begin(isolation="repeatable_read", readonly=True)
        ((name, log_id, epoch, head),) = session.fetch(LOG)
        tables = session.fetch(TABLES)
        return Stats(
            url=str(address),
            name=name,
            log_id=log_id,
            epoch=epoch,
            head=head,
            revision=HEAD,
            rows={table: session.fetch(f"SELECT count(*) FROM {table}")[0][0] for table, *_ in tables},
            file_size=session.fetch(DATABASE_SIZE)[0][0],
            wal_size=0,
            sizes={table: size for table, size, _ in tables},
            indexes={index: size for index, size, *_ in session.fetch(INDEXES)},
            dead={table: dead for table, _, dead in tables},
        )


def begin_epoch(address: PostgresUrl, reason: str) -> Epoch:
    """Begin a new epoch because somebody says so."""
    with Session(address) as session:
        _check_schema(session, address)
        session.begin()
        session.execute(identity.NOT_FOR_EVER)
        session.execute(identity.LOCK_HEAD)
        first = session.run(identity.begin_epoch(session.connection, None, why=reason))
        ((_, _, epoch, _),) = session.fetch(LOG)
        session.commit()
    return Epoch(url=str(address), epoch=epoch, first_position=first)


def _check_schema(session: Session, address: PostgresUrl) -> None:
    if not session.run(connection.check(session.connection, address)):
        raise NotADatabase(url=str(address), reason="it holds no log yet")


def _by_amcheck(session: Session, indexes: list[tuple[Any, ...]], schema: str) -> Iterator[str]:
    for name, _, table, _, oid, *_ in indexes:
        if problem := _problem(session, f"SELECT {schema}.bt_index_check($1::oid::regclass, true)", oid):
            yield f"index {name} of {table}: {problem}"


def _by_counts(session: Session, indexes: list[tuple[Any, ...]]) -> Iterator[str]:
    """An index that lost rows, or kept those that are gone, counts otherwise than its table does."""
    for name, _, table, valid, _, whole, columns in indexes:
        if not valid or not whole:
            continue  # a partial index has its own condition, and its rows are also in the table's others
        session.execute(SEQUENTIAL)
        ((expected,),) = session.fetch(f"SELECT count(*) FROM {table}")
        session.execute(BY_INDEX)
        ordered = ", ".join(columns)
        query = f"SELECT count(*) FROM (SELECT {ordered} FROM {table} ORDER BY {ordered} OFFSET 0) AS ordered"
        if not _uses(session, query, name):
            continue  # another index of the same columns answers: it is counted in its turn
        ((found,),) = session.fetch(query)
        if found != expected:
            yield f"index {name} of {table} has {found} rows, the table has {expected}"


def _uses(session: Session, query: str, index: str) -> bool:
    ((plan,),) = session.fetch(f"EXPLAIN (FORMAT JSON) {query}")
    return f'"Index Name": "{index}"' in json.dumps(json.loads(plan))


def _problem(session: Session, query: str, *values: object) -> str:
    """What the server says against it, empty if nothing; in a savepoint, so that the next question can be asked."""
    session.execute("SAVEPOINT asked")
    try:
        session.fetch(query, *values)
    except StoreError as error:
        session.execute("ROLLBACK TO SAVEPOINT asked")
        return str(error.facts.get("reason", error.message))
    session.execute("RELEASE SAVEPOINT asked")
    return ""
