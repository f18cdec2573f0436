"""A proxy between a program and a PostgreSQL server that fails where a test wants it: it cuts, it stalls, it speaks TLS.

Knows the outer form of PostgreSQL's protocol and the names of the functions that append, nothing else of the hive.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.patience import WITHIN

Fault = Literal["cut", "half", "no answer"]
APPEND = b"hive_append"
# What a server says behind every answer: the transaction is over, the next request may come (protocol, message ReadyForQuery).
READY = b"Z\x00\x00\x00\x05"
PARSE, BIND = b"P", b"B"
# What a server says when it ends a session (ErrorResponse: severity, code, message).
LAST_WORD = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
# What a client asks first when it wants TLS (SSLRequest).
TLS_WANTED = (80877103).to_bytes(4, "big")


class Wire:
    """Passes bytes between clients and the server behind ``upstream`` (the path of its socket).

    `fail` chooses what happens to the next append that passes: ``cut`` loses the connection after the server has committed and
    before the client hears of it; ``half`` passes one half of the request and stops, as a client does that is stopped in the middle;
    ``no answer`` passes the request and holds the answer. `struck` is set when it has happened; `release` lets a stalled one go on.
    """

    def __init__(self, upstream: Path) -> None:
        self.struck = asyncio.Event()
        self.losses = 0
        self._upstream = upstream
        self._fault: Fault | None = None
        self._released = asyncio.Event()
        self._tls: ssl.SSLContext | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passings: set[_Passing] = set()

    def fail(self, fault: Fault) -> None:
        """Let the next append meet this."""
        self._fault = fault
        self.struck.clear()
        self._released.clear()

    def release(self) -> None:
        """Let what was stalled go on."""
        self._released.set()

    def cut_all(self) -> None:
        """Lose every connection that is open now."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def last_word(self) -> None:
        """Tell every client that its session is over, as a server does before it closes; an idle one is closed when somebody uses it."""
        for passing in self._passings:
            passing.is_over = True
            passing.reply.write(b"E" + (len(LAST_WORD) + 4).to_bytes(4, "big") + LAST_WORD)

    async def serve(self, client: asyncio.StreamReader, reply: asyncio.StreamWriter) -> None:
        """Pass the bytes of one connection until either side ends it."""
        ends = {reply}
        try:
            if self._tls is not None:
                await self._upgrade(client, reply)
            reader, writer = await asyncio.open_unix_connection(self._upstream)
            ends.add(writer)
            self._writers |= ends
            passing = _Passing(self, client, reply, reader, writer)
            self._passings.add(passing)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(passing.requests())
                    pumps.create_task(passing.answers())
            finally:
                self._passings.remove(passing)
        except* (OSError, EOFError) as gone:
            self.losses += len(gone.exceptions)  # a side that is gone takes the connection with it
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _upgrade(self, client: asyncio.StreamReader, reply: asyncio.StreamWriter) -> None:
        assert self._tls is not None
        if (await client.readexactly(8))[4:] != TLS_WANTED:
            raise ConnectionRefusedError("this door takes nothing but TLS")
        reply.write(b"S")
        await reply.drain()
        await reply.start_tls(self._tls)  # an SSLError is an OSError: the client does not like our certificate


@dataclass(slots=True, eq=False)
class _Passing:
    """One connection."""

    wire: Wire
    client: asyncio.StreamReader
    reply: asyncio.StreamWriter
    server: asyncio.StreamReader
    request: asyncio.StreamWriter
    appends: set[bytes] = field(default_factory=set)
    fault: Fault | None = None
    is_over: bool = False

    async def requests(self) -> None:
        """Pass what the client says."""
        while (data := await self.client.read(65536)) and not self.is_over:
            # The function's name stands in what prepares the statement (Parse); what runs it (Bind) names the statement.
            if data.startswith(PARSE) and APPEND in data:
                self.appends.add(data[5 : data.index(b"\0", 5) + 1])
            is_append = data.startswith(BIND) and any(name in data[:64] for name in self.appends)
            if is_append and self.wire._fault is not None:
                self.fault, self.wire._fault = self.wire._fault, None
            if self.fault == "half":
                self.fault = None
                self.request.write(data[: len(data) // 2])
                data = data[len(data) // 2 :]
                await self._stall()
            self.request.write(data)
            await self.request.drain()
        self.request.transport.abort()

    async def answers(self) -> None:
        """Pass what the server says."""
        held = b""
        while (data := await self.server.read(65536)) and not self.is_over:
            if self.fault is not None:
                held += data
                if READY not in held:
                    continue
                if self.fault == "cut":
                    self.wire.struck.set()
                    break
                self.fault, data = None, held
                await self._stall()
            self.reply.write(data)
            await self.reply.drain()
        self.reply.transport.abort()

    async def _stall(self) -> None:
        self.wire.struck.set()
        await self.wire._released.wait()


@contextlib.asynccontextmanager
async def wire(server: Path, place: Path, *, certificate: Path | None = None) -> AsyncIterator[tuple[Wire, str]]:
    """A proxy before the server whose socket is in the directory ``server``; gives it and the query of its address.

    Without a ``certificate`` it listens on a socket in ``place``; with one (a file that holds key and certificate), on a port of the
    loopback, and takes nothing but TLS.
    """
    proxy = Wire(server / ".s.PGSQL.5432")
    if certificate is None:
        listening = await asyncio.start_unix_server(proxy.serve, place / ".s.PGSQL.5432")
        where = f"host={place}"
    else:
        proxy._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        proxy._tls.load_cert_chain(certificate)
        listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        where = f"port={listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy, where
    finally:
        proxy.release()
        proxy.cut_all()
        listening.close()
        await listening.wait_closed()


def make_certificate(place: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for ``localhost`` and who vouches for it: the file that a server loads, and the root that a client trusts."""
    key, certificate = place / f"{name}.key", place / f"{name}.crt"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:TRUE"
    )
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=WITHIN
    )
    both = place / f"{name}.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both, certificate
