"""Ways to a PostgreSQL database: socket, TCP with a password, TLS, PgBouncer; and what is said where there is no way."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dashboard.cli.doctor_server import server_checks
from hive_bus import Bus, Context, HandlerGroup, Record, open_bus
from hive_core_db.admin.server import examine
from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.postgres.driver import translate
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import ServerUnsuitable, StatementEnded, StoreRefused, StoreUnavailable, StoreUnreachable
from tests.conftest import NewDatabase
from tests.contract.making import appended, event, fill, positions
from tests.support.handling import Answered, running, say
from tests.support.patience import WITHIN
from tests.support.postgres import PASSWORD, USER, OwnServer, account, psql, with_options
from tests.support.sessions import session
from tests.support.wire import make_certificate, wire

OPENSSL = shutil.which("openssl")
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """A server that listens on a port too, where it wants a password."""
    with OwnServer(tcp=True) as server:
        server.sql("CREATE DATABASE hive")
        yield server


async def used(url: str) -> None:
    """Append and read, and let another store on the same address hear of it."""
    async with open_bus(url) as bus, open_bus(url) as other, other.subscribe("test.said") as records:
        await say(bus, 1)
        async with asyncio.timeout(WITHIN):
            assert (await anext(records)).data == {"number": 1}


async def test_socket_and_port_lead_to_one_log(server: OwnServer) -> None:
    """A log that was made by the socket is read by the port, with the password in the address, escaped or not."""
    await used(server.url("hive"))
    by_port = server.url("hive", tcp=True)
    await used(by_port)
    await used(by_port.replace(PASSWORD, "%71ueen"))
    async with await open_store(by_port) as store:
        assert PASSWORD not in store.url
        assert await store.log.head() == 3


@pytest.mark.parametrize(
    ("login", "name", "said", "advised"),
    [
        ("hive:mouse", "hive", "password authentication failed", "the user and the password"),
        ("mouse:mouse", "hive", "password authentication failed", "the user and the password"),
        ("hive:queen", "wasps", 'database "wasps" does not exist', "createdb"),
        ("hive:queen", "hive?schema=pg_hive", "unacceptable schema name", "does not begin with pg_"),
        ("hive:queen", "hive?sslmode=require", "TLS: .* rejected", "sslmode"),
        ("guest:queen", "hive?schema=other", "permission denied for", "own the schema"),
    ],
)
async def test_a_door_that_does_not_open_says_why(
    server: OwnServer, login: str, name: str, said: str, advised: str
) -> None:
    """Wrong password, no such user, no such database: a typed error, with what to do, and without the password."""
    await asyncio.to_thread(server.sql, f"DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    with pytest.raises(StoreUnavailable, match=said) as caught:
        await open_store(f"postgresql://{login}@127.0.0.1:{server.port}/{name}")
    assert not caught.value.retryable
    assert advised in caught.value.advice
    assert ":mouse" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("where", ["127.0.0.1:1/hive", "/hive?host=/nowhere/at/all"])
async def test_a_server_that_is_not_there_may_come(where: str) -> None:
    """Nobody listens: that is worth another try, and the error says where nobody was."""
    with pytest.raises(StoreUnreachable, match=r"nowhere|127") as caught:
        await open_store(f"postgresql://{USER}:secret@{where}")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert "server" in caught.value.advice


async def test_a_server_that_isolates_otherwise_is_refused(server: OwnServer) -> None:
    """Where READ COMMITTED is not the default, or a commit is not waited for, the log's promises would not hold: the way to mend it is said."""
    for setting, reason in (
        ("default_transaction_isolation = 'repeatable read'", "repeatable read"),
        ("synchronous_commit = off", "synchronous_commit"),
    ):
        await asyncio.to_thread(server.sql, f"ALTER DATABASE hive SET {setting}")
        try:
            with pytest.raises(ServerUnsuitable, match=reason) as caught:
                await open_store(server.url("hive"))
            assert "ALTER DATABASE" in caught.value.advice
        finally:
            await asyncio.to_thread(server.sql, "ALTER DATABASE hive RESET ALL")


@pytest.mark.parametrize(
    ("name", "may_not"), [("hive", "append"), ("hive?schema=other", "make tables"), ("empty", "make tables")]
)
async def test_doctor_sees_a_role_without_rights(server: OwnServer, name: str, may_not: str) -> None:
    """It says so before the first process fails: of somebody else's log, of a schema that is not there, and of an empty database."""
    await used(server.url("hive"))
    await asyncio.to_thread(server.sql, "DROP DATABASE IF EXISTS empty; CREATE DATABASE empty")
    await asyncio.to_thread(server.sql, f"DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    for role, problems in (("hive", []), ("guest", [f"the role guest may not {may_not} there"])):
        seen = await asyncio.to_thread(examine, f"postgresql://{role}:{PASSWORD}@127.0.0.1:{server.port}/{name}")
        assert [check.found for check in server_checks(seen) if check.name == "rights"] == problems


async def test_a_time_limit_for_others_does_not_end_what_the_hive_does(server: OwnServer) -> None:
    """A `statement_timeout` of the database holds for its other users; where it holds for a statement of ours, the error says so."""
    await asyncio.to_thread(server.sql, "ALTER DATABASE hive SET statement_timeout = '1s'")
    try:
        async with session(server.url("hive")) as mine:
            assert await mine.fetchval("SHOW statement_timeout") == "0"
            await mine.execute("SET statement_timeout = '10ms'")
            with pytest.raises(Exception, match="statement timeout") as cut:
                await mine.execute("SELECT pg_sleep(60)")
    finally:
        await asyncio.to_thread(server.sql, "ALTER DATABASE hive RESET ALL")
    address = parse(server.url("hive"))
    assert isinstance(address, PostgresUrl)
    said = translate(cut.value, address)
    assert isinstance(said, StatementEnded)
    assert said.retryable
    assert "another program" not in str(said)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A server's certificate for localhost, the root that vouches for it, and one that does not."""
    place = tmp_path_factory.mktemp("tls")
    mine, root = make_certificate(place, "mine")
    return mine, root, make_certificate(place, "other")[1]


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl on this machine to make certificates with")
async def test_tls_is_spoken_and_checked(
    server: OwnServer, tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    """With the right root the log is used over TLS; a wrong root, a wrong name and a plain connection are refused."""
    mine, root, other = certificates
    async with wire(server.directory, tmp_path, certificate=mine) as (_, where):
        port = where.removeprefix("port=")
        base = f"postgresql://{USER}@localhost:{port}/hive"
        await used(f"{base}?sslmode=verify-full&sslrootcert={root}")
        await used(f"{base}?sslmode=require")
        for wrong in (
            f"{base}?sslmode=verify-full&sslrootcert={other}",
            f"{base.replace('localhost', '127.0.0.1')}?sslmode=verify-full&sslrootcert={root}",
            f"{base}?sslmode=disable",
        ):
            with pytest.raises(StoreUnavailable):
                await open_store(wrong)


async def test_a_schema_is_a_log_of_its_own(new_database: NewDatabase) -> None:
    """Two schemas of one database: their events, leases and wake-ups do not meet, and neither waits for the other's lock."""
    url = new_database()
    red, blue = with_options(url, schema="red"), with_options(url, schema="blue")
    async with await open_store(red) as one, await open_store(blue) as two, session(red) as holding:
        await fill(one, 3)
        await holding.execute("BEGIN")
        await holding.execute("SELECT hive_lock_head()")
        async with asyncio.timeout(WITHIN):
            await appended(two, event())
        await holding.execute("ROLLBACK")
        assert [positions(await store.log.read(0, limit=10)) for store in (one, two)] == [[1, 2, 3], [1]]
        assert (await one.log.meta()).log_id != (await two.log.meta()).log_id
    assert await asyncio.to_thread(psql, url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"


POOLER = """
[databases]
* = host={directory} user={user}
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {directory}
auth_type = any
pool_mode = {mode}
default_pool_size = {connections}
max_client_conn = 100
server_reset_query = DISCARD ALL
server_reset_query_always = 1
"""


@asynccontextmanager
async def pooled(server: OwnServer, *, mode: str = "transaction", connections: int = 2) -> AsyncIterator[str]:
    """PgBouncer before the server, with so many server connections for all clients: the address, without the hive's own parameters.

    After every transaction it wipes the session, so whatever leans on one finds out.
    """
    assert PGBOUNCER is not None
    settings = server.directory / "pgbouncer.ini"
    settings.write_text(POOLER.format(directory=server.directory, user=USER, mode=mode, connections=connections))
    process = await asyncio.create_subprocess_exec(
        *(PGBOUNCER, settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        **account(),  # it refuses root, as the server does
    )
    assert process.stderr is not None
    said = b""
    try:
        while b"listening on unix" not in (line := await process.stderr.readline()):
            said += line
            assert line, said.decode()
        yield f"postgresql://{USER}@/hive?host={server.directory}&port=6432"
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.skipif(
    PGBOUNCER is None, reason="there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)"
)
async def test_through_pgbouncer_in_transaction_mode(server: OwnServer) -> None:
    """Three processes share two server connections, each statement on either: appends, groups, leases and polling work as ever."""
    await asyncio.to_thread(server.sql, "DROP DATABASE hive WITH (FORCE)")
    await asyncio.to_thread(server.sql, "CREATE DATABASE hive")
    async with pooled(server) as url:
        await _asked_and_answered(f"{url}&pgbouncer=on")
    assert list(map(str, await asyncio.to_thread(lambda: list(audit(server.url("hive")))))) == []


@pytest.mark.skipif(
    PGBOUNCER is None, reason="there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)"
)
async def test_through_pgbouncer_in_session_mode(server: OwnServer) -> None:
    """Without prepared statements everything works, LISTEN too; what PgBouncer refuses otherwise comes with the word that helps."""
    async with pooled(server, mode="session", connections=40) as url:
        with pytest.raises(StoreRefused, match="unsupported startup parameter") as caught:
            await open_store(url)
        assert "prepared=off" in caught.value.advice
        with pytest.raises(StoreRefused, match="search_path") as caught:
            await open_store(f"{url}&prepared=off&schema=red")
        assert "ALTER ROLE" in caught.value.advice
        await _asked_and_answered(f"{url}&prepared=off")


async def _asked_and_answered(url: str) -> None:
    async def answer(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=record.data["number"]))

    def member(bus: Bus) -> HandlerGroup:
        return HandlerGroup(bus, answer, group="echo", patterns=("test.said",))

    async with (
        open_bus(url, source="asks") as bus,
        open_bus(url) as first,
        open_bus(url) as second,
        running(member(first), member(second)),
        bus.subscribe("test.answered", start=0) as records,
    ):
        async with asyncio.TaskGroup() as callers:
            for number in range(60):
                callers.create_task(say(bus, number, stream=f"s{number % 7}"))
        async with asyncio.timeout(WITHIN):
            heard = [(await anext(records)).data["number"] for _ in range(60)]
    assert sorted(heard) == list(range(60))
