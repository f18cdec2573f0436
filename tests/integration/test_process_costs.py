"""What commands cost this process, and that they do not outlive it; each measured in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_process import gone

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1024 * 1024


def measured(*arguments: str) -> dict[str, Any]:
    """What the measuring process says."""
    command = [sys.executable, "-m", "tests.support.command_run", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_gigabytes_of_output_cost_under_twenty_megabytes() -> None:
    """Memory does not grow with what a command writes."""
    found = measured("flood", "2G")
    assert found["memory"] < 20 * MEGABYTE
    assert found["kept"] < 70_000
    assert found["truncated"]


@pytest.mark.parametrize("count", [100, 500])
def test_many_commands_run_at_once(tmp_path: Path, count: int) -> None:
    """All of them in flight together, in little memory, with nothing left open and each with the usual limit of files."""
    found = measured("many", str(count), str(tmp_path / "gate"))
    assert found["outcomes"] == [[0, str(found["soft"])]]
    assert found["memory"] < 300 * MEGABYTE
    assert found["leaked"] == 0


async def test_a_killed_hive_s_commands_end(tmp_path: Path) -> None:
    """`kill -9` of the process that runs a command ends the command and its children, though they ignore signals."""
    command = [sys.executable, "-m", "tests.support.command_run", "orphan", str(tmp_path / "pids")]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        await gone(pid)
