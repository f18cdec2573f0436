"""The watchdog sees what blocks an event loop, says where, and accuses nobody else."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.console import on_terminal
from tests.watchdog import LoopWatchdog

pytestmark = pytest.mark.may_block("blocked loops are what the watchdog is shown")

WAIT_LIMIT, COMPUTE_LIMIT = 0.25, 1.0
"""Seconds: shorter than where all tests are watched, for here nothing else goes on."""

PLANTED = """
import asyncio, time

async def test_sleeps_on_the_loop():
    time.sleep(3)

async def test_is_innocent():
    await asyncio.sleep(0)
"""


async def _sleep_on_the_loop() -> None:
    time.sleep(2)


async def _compute_on_the_loop() -> None:
    until = time.thread_time() + COMPUTE_LIMIT + 0.6
    while time.thread_time() < until:
        pass


async def _work_in_a_thread() -> None:
    await asyncio.to_thread(time.sleep, 0.5)


async def _call_a_helper_that_waits() -> None:
    on_terminal(["sleep", "0.5"], Path("/"), os.environ, columns=80)


async def _compute_for_a_moment() -> None:
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass


def test_a_sleep_on_the_loop_is_seen_with_its_place() -> None:
    """Two seconds of `time.sleep` are one finding that shows the function."""
    with LoopWatchdog(wait_limit=WAIT_LIMIT) as watchdog:
        asyncio.run(_sleep_on_the_loop())
    [finding] = watchdog.findings
    assert "waited" in finding
    assert "_sleep_on_the_loop" in finding


def test_a_loop_in_another_thread_is_watched_too() -> None:
    """The blocking bus keeps its loop in a thread; that one is watched as well."""
    with LoopWatchdog(wait_limit=WAIT_LIMIT) as watchdog:
        thread = threading.Thread(target=lambda: asyncio.run(_sleep_on_the_loop()))
        thread.start()
        thread.join()
    assert len(watchdog.findings) == 1


def test_long_computing_is_seen() -> None:
    """A callback that keeps the processor is a finding, though it never waits."""
    with LoopWatchdog(compute_limit=COMPUTE_LIMIT) as watchdog:
        asyncio.run(_compute_on_the_loop())
    [finding] = watchdog.findings
    assert "computed" in finding


@pytest.mark.parametrize("innocent", [_work_in_a_thread, _call_a_helper_that_waits, _compute_for_a_moment])
def test_waiting_elsewhere_and_short_computing_are_no_findings(innocent: object) -> None:
    """What waits in a worker thread or for a program of the test's, or computes for a moment, is accused of nothing."""
    with LoopWatchdog(wait_limit=WAIT_LIMIT) as watchdog:
        asyncio.run(innocent())  # type: ignore[operator]  # a parameter of two coroutine functions
    assert watchdog.findings == []


def test_an_import_takes_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is new to the process may compute for long; whoever imported it is watched again afterwards."""
    (tmp_path / "heavy_to_import.py").write_text(
        f"import time\nuntil = time.thread_time() + {COMPUTE_LIMIT + 0.2}\nwhile time.thread_time() < until:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    async def import_it() -> None:
        importlib.import_module("heavy_to_import")
        await _compute_for_a_moment()

    with LoopWatchdog(wait_limit=WAIT_LIMIT, compute_limit=COMPUTE_LIMIT) as watchdog:
        asyncio.run(import_it())
        assert watchdog.findings == []
        asyncio.run(_sleep_on_the_loop())
    assert len(watchdog.findings) == 1


def test_a_crowd_of_busy_threads_is_no_finding() -> None:
    """Waiting for the interpreter's lock between busy threads is not a blocking call."""
    enough = threading.Event()

    def spin() -> None:
        while not enough.is_set():
            pass

    crowd = [threading.Thread(target=spin) for _ in range(4)]
    with LoopWatchdog() as watchdog:
        for thread in crowd:
            thread.start()
        try:
            asyncio.run(_compute_for_a_moment())
        finally:
            enough.set()
            for thread in crowd:
                thread.join()
    assert watchdog.findings == []


def test_a_test_that_blocks_its_loop_fails_alone(tmp_path: Path) -> None:
    """In a real run the guilty test fails, with the line, and its neighbour passes."""
    (tmp_path / "test_planted.py").write_text(PLANTED)
    root = Path(__file__).parents[2]
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-c", root / "pyproject.toml", "--rootdir", tmp_path]
    run = subprocess.run(
        [*command, "-p", "tests.conftest", tmp_path], cwd=root, capture_output=True, text=True, check=False
    )
    assert "1 failed, 1 passed" in run.stdout
    assert "::test_sleeps_on_the_loop" in run.stdout
    assert "time.sleep(3)" in run.stdout
