"""A pooler in transaction mode, as small as it can be: a client has a server connection only while its transaction lasts.

It understands as much of PostgreSQL's protocol as that takes, and is harsher than PgBouncer: each transaction gets
another one of its server connections, in turn. A client that leans on its session is found out at once.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_SSL_REQUEST: Final = 80877103
_CANCEL_REQUEST: Final = 80877102
_IDLE: Final = b"I"
# Goodbye, or no more words at all.
_LEAVES: Final = (b"X", b"")

# Its kind and its content.
Message = tuple[bytes, bytes]


class Backend:
    """One connection to the server, and what the server said when it began."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = greeting


class Pooler:
    """Serves clients on a socket in a directory, by a few connections to the server behind another one."""

    def __init__(self, server: Path, *, user: str, database: str) -> None:
        self._server = server
        self._start = b"\0".join([b"user", user.encode(), b"database", database.encode(), b"", b""])
        self._idle: asyncio.Queue[Backend] = asyncio.Queue()
        self.transactions = 0

    @asynccontextmanager
    async def serve(self, directory: Path, *, backends: int = 3) -> AsyncIterator[None]:
        """Take clients at ``directory`` until the block ends."""
        opened = [await self._connect() for _ in range(backends)]
        for backend in opened:
            self._idle.put_nowait(backend)
        server = await asyncio.start_unix_server(self._client, directory / ".s.PGSQL.5432")
        try:
            yield
        finally:
            server.close()
            for backend in opened:
                backend.writer.close()

    async def _connect(self) -> Backend:
        reader, writer = await asyncio.open_unix_connection(self._server / ".s.PGSQL.5432")
        writer.write(struct.pack("!ii", 8 + len(self._start), 196608) + self._start)
        greeting = b""
        while True:
            kind, body = await _message(reader)
            greeting += _pack(kind, body)
            if kind == b"Z":
                return Backend(reader, writer, greeting)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await self._greet(reader, writer):
                async with asyncio.TaskGroup() as tasks:
                    asked = tasks.create_task(_message(reader))
                    while (first := await asked)[0] not in _LEAVES:
                        asked = await self._transaction(first, tasks, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            (size,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code == _CANCEL_REQUEST:
                return False
            if code != _SSL_REQUEST:
                break
            writer.write(b"N")
        backend = await self._idle.get()
        writer.write(backend.greeting)
        self._idle.put_nowait(backend)
        return True

    async def _transaction(
        self, first: Message, tasks: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Task[Message]:
        """Give the client a server connection from its first message until the server is idle again; return its next message."""
        backend = await self._idle.get()
        self.transactions += 1
        backend.writer.write(_pack(*first))
        answers = tasks.create_task(self._answer(backend, writer))
        while True:
            asked = tasks.create_task(_message(reader))
            await asyncio.wait({asked, answers}, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                self._idle.put_nowait(backend)
                return asked
            backend.writer.write(_pack(*asked.result()))

    async def _answer(self, backend: Backend, writer: asyncio.StreamWriter) -> None:
        """Pass on what the server says, until it is idle and outside of a transaction."""
        kind, body = b"", b""
        while (kind, body) != (b"Z", _IDLE):
            kind, body = await _message(backend.reader)
            writer.write(_pack(kind, body))


async def _message(reader: asyncio.StreamReader) -> Message:
    kind = await reader.read(1)
    if not kind:
        return b"", b""
    (size,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(size - 4)


def _pack(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(body)) + body
