"""The ways in to a NATS server, servers that will not do, and `hive up` and `hive mirror` on a real one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]
import pytest

from hive_bus import open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.settings import NatsSettings
from hive_errors.mirror import MirrorError, MirrorUnreachable, MirrorUnsuitable
from tests.support.certificate import CERTIFICATE, KEY
from tests.support.console import Console
from tests.support.mirrors import equal, publish, reached
from tests.support.nats_accounts import Signer
from tests.support.nats_server import NatsServer
from tests.support.patience import WITHIN
from tests.support.tables import tamper


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of this test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


async def test_a_user_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password comes from the environment, or from a file; a wrong one is an error that says so."""
    with NatsServer(tmp_path / "nats", more='authorization { user: hive, password: "honey pot" }') as server:
        monkeypatch.setenv("HIVE_NATS_PASSWORD", "honey pot")
        async with connected(server.settings(user="hive")) as connection:
            await connection.ask("INFO")
        monkeypatch.delenv("HIVE_NATS_PASSWORD")
        (tmp_path / "password").write_text("honey pot\n")
        async with connected(server.settings(user="hive", password_file=tmp_path / "password")) as connection:
            await connection.ask("INFO")
        with pytest.raises(MirrorUnreachable, match=r"(?i)authorization"):
            async with connected(server.settings(user="hive")):
                pass


async def test_a_token_and_a_key(tmp_path: Path) -> None:
    """A token, and an NKey whose seed never leaves this side."""
    (tmp_path / "token").write_text("honey\n")
    with NatsServer(tmp_path / "token-server", more="authorization { token: honey }") as server:
        async with connected(server.settings(token_file=tmp_path / "token")) as connection:
            await connection.ask("INFO")
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(seed)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    with NatsServer(tmp_path / "nkey-server", more=f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        async with connected(server.settings(nkey=tmp_path / "seed")) as connection:
            await connection.ask("INFO")


async def test_tls_with_a_certificate_of_this_side(tmp_path: Path) -> None:
    """The server's certificate is checked, and it asks for this client's; without one of both nobody is let in."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    pair = f'cert_file: "{tmp_path}/ca.pem", key_file: "{tmp_path}/key.pem"'
    with NatsServer(tmp_path / "nats", more=f'tls {{ {pair}, ca_file: "{tmp_path}/ca.pem", verify: true }}') as server:
        mine: dict[str, Any] = {
            "tls_ca": tmp_path / "ca.pem",
            "tls_cert": tmp_path / "ca.pem",
            "tls_key": tmp_path / "key.pem",
        }
        url = f"tls://localhost:{server.port}"
        async with connected(NatsSettings(url=url, **mine)) as connection:
            await connection.ask("INFO")
        # Who refuses a server says why; who is refused finds the connection ended, in whatever words at that moment.
        for lacking, why in (("tls_ca", "certificate"), ("tls_cert", "")):
            some = {key: value for key, value in mine.items() if key != lacking}
            with pytest.raises(MirrorUnreachable, match=rf"(?i){why}"):
                async with connected(NatsSettings(url=url, **some)):
                    pass


async def test_credentials_as_a_file(tmp_path: Path) -> None:
    """A user of an account of an operator, by JWT and NKey in one file; another account's user is not let in to this server."""
    operator, account, system = (Signer.new(kind) for kind in ("OPERATOR", "ACCOUNT", "ACCOUNT"))
    anything = dict.fromkeys(
        ("mem_storage", "disk_storage", "streams", "consumer", "conn", "subs", "data", "payload"), -1
    )
    trusted = {
        account.public: operator.signs(account, "account", limits=anything),
        system.public: operator.signs(system, "account", limits=anything | {"disk_storage": 0, "mem_storage": 0}),
    }
    preload = "\n".join(f'  {public}: "{token}"' for public, token in trusted.items())
    more = (
        f'operator: "{operator.signs(operator, "operator")}"\nsystem_account: {system.public}\n'
        f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}"
    )
    with NatsServer(tmp_path / "nats", more=more) as server:
        account.credentials(tmp_path / "hive.creds")
        async with connected(server.settings(creds=tmp_path / "hive.creds")) as connection:
            await connection.ask("INFO")
        Signer.new("ACCOUNT").credentials(tmp_path / "others.creds")
        with pytest.raises(MirrorUnreachable, match=r"(?i)authorization"):
            async with connected(server.settings(creds=tmp_path / "others.creds")):
                pass


async def test_servers_that_will_not_do(tmp_path: Path, nats: NatsServer) -> None:
    """Nobody there is retryable, too small messages are not."""
    await asyncio.to_thread(nats.stop)
    with pytest.raises(MirrorUnreachable) as away:
        async with connected(nats.settings()):
            pass
    assert away.value.retryable
    with NatsServer(tmp_path / "small", max_payload=4096) as small:
        with pytest.raises(MirrorUnsuitable, match="4096") as refused:
            async with connected(small.settings()):
                pass
        assert isinstance(refused.value, MirrorError)


async def test_up_relays_and_mirror_looks(tmp_path: Path, hive_url: str, nats: NatsServer) -> None:
    """`hive up` mirrors what is published elsewhere; status, verify and rebuild say what is there."""
    (tmp_path / "hive.yaml").write_text(f"nats: {nats.url}\n")
    hive = Console(tmp_path, hive_url)
    async with open_bus(hive_url, source="a test") as bus:
        up = await asyncio.to_thread(hive.start, "up")
        try:
            head = await publish(bus, 20)
            await reached(nats.settings(), bus, head)
        finally:
            up.send_signal(signal.SIGTERM)
            _, said = await asyncio.to_thread(up.communicate, timeout=WITHIN)
        assert up.returncode == 0, said
        async with asyncio.TaskGroup() as tasks:
            relay = tasks.create_task(Relay(bus, nats.settings()).run())
            await equal(nats.settings(), bus, await bus.head())
            relay.cancel()
        head = await bus.head()
    status = await asyncio.to_thread(hive, "mirror", "status", "--json")
    assert (status.code, status.json[0]["mirrored"], status.json[0]["behind"]) == (0, head, 0)
    verified = await asyncio.to_thread(hive, "mirror", "verify")
    assert (verified.code, "equal" in verified.out) == (0, True)
    await asyncio.to_thread(tamper, hive_url, "UPDATE events SET source = 'x' WHERE position = 5")
    verified = await asyncio.to_thread(hive, "mirror", "verify", "--json")
    assert (verified.code, verified.json[0]["differences"][0]["position"]) == (1, 5)
    assert (await asyncio.to_thread(hive, "mirror", "rebuild")).code == 0
    assert (await asyncio.to_thread(hive, "mirror", "verify")).code == 1
    assert "NATS" in (await asyncio.to_thread(hive, "doctor")).out
