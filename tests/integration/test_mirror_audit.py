"""`hive audit` looks at the mirror too, where a server is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hive_bus import open_bus
from hive_bus.mirror.connection import connected
from tests.support.console import Console, Done
from tests.support.mirrors import equal, publish, relaying
from tests.support.nats_server import NatsServer
from tests.support.tables import tamper

# A server starts, and commands run.


async def test_an_audit_compares_the_mirror(hive_url: str, tmp_path: Path) -> None:
    """Equal is said; a changed event and a stream of somebody else are findings; a server that is away is only said."""
    hive = Console(tmp_path, hive_url)

    async def audit(*words: str) -> Done:
        return await asyncio.to_thread(hive, "audit", *words)

    with NatsServer(tmp_path / "nats") as nats:
        (tmp_path / "hive.yaml").write_text(f"nats: {nats.url}\n")
        async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
            head = await publish(bus, 20)
            await equal(nats.settings(), bus, head)
        sound = await audit()
        assert (sound.code, f"{head} positions compared" in sound.err) == (0, True)
        assert "every invariant holds" in sound.out

        await asyncio.to_thread(tamper, hive_url, "UPDATE events SET source = 'x' WHERE position = 5")
        wrong = await audit("--json")
        (finding,) = wrong.json
        assert (wrong.code, finding["code"], finding["position"]) == (1, "mirror-differs", 5)
        assert "Hive-Source" in finding["what"]

        async with connected(nats.settings()) as connection:
            await connection.ask("STREAM.DELETE.HIVE_hive_1")
            missing = await audit()
            assert (missing.code, "there is no stream" in missing.err) == (0, True)
            await connection.ask("STREAM.CREATE.HIVE_hive_1", {"name": "HIVE_hive_1", "subjects": ["others"]})
        others = await audit("--json")
        assert (others.code, [one["code"] for one in others.json]) == (1, ["mirror-not-ours"])

    away = await audit()
    assert (away.code, "the mirror was not compared" in away.err) == (0, True)
    assert "every invariant holds" in away.out
