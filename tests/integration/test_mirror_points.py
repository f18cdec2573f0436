"""A relay that dies at any suspension loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.nats_server import NatsServer
from tests.support.unmeasured import unmeasured

SHARE = {"sqlite": 4, "postgres": 9}
"""Every so many-th suspension; a soak takes every one."""
FLOOR = 40


async def test_death_at_any_suspension(
    hive_url: str, database: str, tmp_path: Path, fault_seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """It dies at the n-th suspension; another one goes on, and every position is there once, byte for byte."""
    stride = 1 if fault_seconds > DEFAULT_FAULT_SECONDS else SHARE[database]
    # Dozens of children die in a row: measuring each would take minutes, and they run what other tests measure.
    plain = unmeasured()
    with NatsServer(tmp_path / "nats") as nats:
        points = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.mirror_points", hive_url, nats.url, str(stride)),
            stdout=PIPE,
            stderr=PIPE,
            env=plain,
        )
        said, complaints = await points.communicate()
    assert points.returncode == 0, complaints.decode()
    report = json.loads(said)
    assert report["wrong"] == [], complaints.decode()
    assert report["survived"]
    with capsys.disabled():
        sys.stdout.write(f" [died at {report['points']} of {report['last'] - stride} suspensions] ")
    assert report["last"] > FLOOR
    assert report["points"] == report["last"] // stride - 1
