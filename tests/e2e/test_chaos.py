"""Chaos: three processes and their database are killed and stood still at random, and every promise holds.

Each run prints its seed and what happened when; `HIVE_FAULT_SEED` repeats the plan, `python -m tests.support.chaos` by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.chaos import Report, chaos
from tests.support.postgres import OwnServer

FEW, MANY = 20, 200
SHORTEST = 10.0


async def _chaos(url: str, directory: Path, seed: int, fault_seconds: float, server: OwnServer | None = None) -> Report:
    soak = fault_seconds > DEFAULT_FAULT_SECONDS
    return await chaos(
        url,
        directory,
        seed=seed,
        runs=MANY if soak else FEW,
        seconds=fault_seconds if soak else SHORTEST,
        server=server,
    )


@pytest.mark.timeout(1800)
async def test_chaos_on_one_file(tmp_path: Path, fault_seed: int, fault_seconds: float) -> None:
    """On SQLite: processes are killed and stood still; the log is sound, every run ends, nothing dangerous is done twice."""
    report = await _chaos(f"sqlite:///{tmp_path / 'hive.db'}", tmp_path, fault_seed, fault_seconds)
    print(report)  # noqa: T201 - whoever looks into a failure needs the seed and the timeline
    assert report.wrong == [], report


@pytest.mark.timeout(1800)
async def test_chaos_on_a_server(tmp_path: Path, fault_seed: int, fault_seconds: float, own_server: OwnServer) -> None:
    """On PostgreSQL: the server is killed and started again as well."""
    report = await _chaos(own_server.url(), tmp_path, fault_seed, fault_seconds, own_server)
    print(report)  # noqa: T201 - as above
    assert report.wrong == [], report


@pytest.fixture
def own_server() -> object:
    """A server that only this test uses."""
    with OwnServer() as server:
        yield server
