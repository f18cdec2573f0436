"""A NATS server for development: on loopback, with its data below ``.hive/nats``, ended with the process that started it.

A directory has one at most. It keeps its port from start to start where that is still free, and whoever works on the same database in the
same directory finds it by a file. Whether it lives is told by a lock that the server itself holds, so that nothing stale is believed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from hive_bus.mirror.settings import NatsSettings
from hive_core_db.url import SqliteUrl, parse
from hive_errors.mirror import MirrorServerFailed, MirrorServerMissing

PROGRAM: Final = "nats-server"
FOLDER: Final = Path(".hive") / "nats"
KEPT: Final = 1 << 30
"""Bytes that a stream keeps: enough to develop with, and no disk is filled."""
START_SECONDS: Final = 15.0
TAKE_OVER_SECONDS: Final = 2.0
"""So long a server whose process was killed is given to end."""
_TRIES: Final = 3

# The server ends when the pipe is closed, however its owner ended; the other pipe's end tells that the server did.
_GUARD: Final = '"$@" & server=$!; exec >&-; read -r _; kill "$server"; wait "$server"'
_CONFIG: Final = """\
listen: "127.0.0.1:{port}"
server_name: "{name}"
log_file: "{folder}/server.log"
logfile_size_limit: 10MB
jetstream {{ store_dir: "{folder}/data", max_memory_store: 64MB, max_file_store: 4GB }}
"""


def running(directory: Path, db: str) -> dict[str, object] | None:
    """The settings that lead to the server that a process started in this directory for this database; None if there is none now."""
    folder = directory / FOLDER
    try:
        said = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        lock = (folder / "lock").open("rb")
    except (OSError, ValueError):
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _settings(said["url"]) if said["db"] == _identity(db) else None
    return None  # it was stopped, and its file says where it was


@asynccontextmanager
async def embedded(directory: Path, db: str) -> AsyncIterator[NatsSettings]:
    """Start a server for this database, or use the one that another process has started in this directory.

    Raises :class:`MirrorServerMissing`, :class:`MirrorServerFailed`.
    """
    folder = (directory / FOLDER).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise MirrorServerFailed(reason=str(problem), log=str(folder)) from problem
    with (folder / "lock").open("ab") as lock:
        if not await _taken(lock):
            other = running(directory, db)
            if other is None:
                raise MirrorServerFailed(reason="the server of this directory is for another database", log=str(folder))
            yield NatsSettings.model_validate(other)
            return
        program = _program()
        for tries in range(1, _TRIES + 1):
            port = _port(folder)
            process = await _start(program, folder, port, lock)
            try:
                if await _answers(process, port):
                    said = {"url": f"nats://127.0.0.1:{port}", "db": _identity(db)}
                    _write(folder / "server.json", json.dumps(said))
                    yield NatsSettings.model_validate(_settings(said["url"]))
                    return
            finally:
                await _end(process)
            (folder / "server.json").unlink(missing_ok=True)  # the next try is on another port
            if tries == _TRIES:
                raise MirrorServerFailed(reason=_last_words(folder), log=str(folder / "server.log"))


def _settings(url: str) -> dict[str, object]:
    return {"url": url, "keep_bytes": KEPT}


def _identity(db: str) -> str:
    address = parse(db)
    return str(address.path.resolve()) if isinstance(address, SqliteUrl) else str(address)


async def _taken(lock: IO[bytes]) -> bool:
    """Take the lock, waiting a moment for a server that is about to end; False: somebody else's server is there to stay."""
    loop = asyncio.get_running_loop()
    until = loop.time() + TAKE_OVER_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > until:
                return False
            await asyncio.sleep(0.05)
        else:
            return True


def _program() -> str:
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise MirrorServerMissing(program=PROGRAM)
    return found


def _port(folder: Path) -> int:
    """The port of the last time if it is still free, else any."""
    try:
        last = int(json.loads((folder / "server.json").read_text(encoding="utf-8"))["url"].rpartition(":")[2])
    except (OSError, ValueError):
        last = 0
    for port in (last, 0):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(one.getsockname()[1])
    raise MirrorServerFailed(reason="no port is free", log=str(folder))


async def _start(program: str, folder: Path, port: int, lock: IO[bytes]) -> Process:
    config = folder / "server.conf"
    _write(config, _CONFIG.format(port=port, name=f"hive-{os.getpid()}", folder=folder))
    return await asyncio.create_subprocess_exec(
        *("sh", "-c", _GUARD, "sh", program, "-c", str(config)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        pass_fds=(lock.fileno(),),
        start_new_session=True,  # Ctrl-C is for the hive, which ends the server last
    )


async def _answers(process: Process, port: int) -> bool:
    """Wait until the server greets; False if it ended."""
    assert process.stdout is not None
    loop = asyncio.get_running_loop()
    until = loop.time() + START_SECONDS
    while loop.time() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            try:
                await asyncio.wait_for(process.stdout.read(1), 0.05)
            except TimeoutError:
                continue
            return False
        try:
            # Whoever else has the port by now may say nothing at all.
            greeting = await asyncio.wait_for(reader.read(4), until - loop.time())
        except TimeoutError:
            return False
        finally:
            writer.close()
        if greeting == b"INFO":
            return True
    return False


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


def _last_words(folder: Path) -> str:
    try:
        lines = (folder / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it ended at once"


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
