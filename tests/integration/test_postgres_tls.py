"""TLS as an address asks for it: checked against a certificate, or refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from hive_core_db.engine import open_store
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import StoreUnavailable
from tests.conftest import NewDatabase
from tests.contract.making import appended, event
from tests.support.certificate import CERTIFICATE, KEY

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Front:
    """Speaks TLS to clients and passes on what they say to a server behind a socket: the servers of the tests are built without."""

    def __init__(self, server: Path, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self.encrypted = 0

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        try:
            assert await reader.readexactly(8) == SSL_REQUEST
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            behind, there = await asyncio.open_unix_connection(self._server / ".s.PGSQL.5432")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, there))
                tasks.create_task(_pass_on(behind, writer))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while text := await reader.read(65536):
            writer.write(text)
            await writer.drain()
    writer.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with certificate and key."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    return tmp_path


@pytest.fixture
async def front(new_database: NewDatabase, files: Path) -> AsyncIterator[tuple[Front, str]]:
    """A server behind TLS on a port of this machine, and the address of a database there without host and port."""
    address = parse(new_database())
    assert isinstance(address, PostgresUrl)
    assert address.host is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "ca.pem", files / "key.pem")
    made = Front(Path(address.host), context)
    server = await asyncio.start_server(made.client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield (
        made,
        f"postgresql://{address.user}@{{host}}:{port}/{address.database}?sslmode=verify-full&sslrootcert={files}/{{file}}",
    )
    server.close()


async def test_a_checked_certificate_encrypts_every_connection(front: tuple[Front, str]) -> None:
    """With ``verify-full`` and the right name the store opens and works, and every session of it is encrypted."""
    made, url = front
    async with await open_store(url.format(host="localhost", file="ca.pem")) as store:
        await appended(store, event())
        assert await store.log.head() == 1
    assert made.encrypted >= 2


async def test_a_certificate_for_another_name_is_refused(front: tuple[Front, str]) -> None:
    """The server's name is checked, and a mismatch is no reason to try again."""
    with pytest.raises(StoreUnavailable, match="TLS") as caught:
        await open_store(front[1].format(host="127.0.0.1", file="ca.pem"))
    assert not caught.value.retryable


async def test_a_file_that_is_not_there_is_named(front: tuple[Front, str]) -> None:
    """The error has the parameter and the path."""
    with pytest.raises(StoreUnavailable, match=r"sslrootcert is .*nowhere"):
        await open_store(front[1].format(host="localhost", file="nowhere"))
