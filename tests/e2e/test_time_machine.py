"""The story of the README from end to end: a run is killed, recovered, traced, forked, compared, explained and counted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.docs.shown import ROOT, blocks, differences, environment

STORY = ROOT / "examples/time_machine/story.sh"


@pytest.fixture
async def told(tmp_path: Path, console_database: str) -> str:
    """What the story prints; it must end well."""
    setting = {"HIVE_DB": console_database} if console_database else {}
    process = await asyncio.create_subprocess_exec(
        STORY,
        cwd=tmp_path,
        env=environment() | setting,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_one_script_tells_it_all(told: str) -> None:
    """Run, kill, recover, trace, fork with another model, diff, why, cost: each part says what it must, and nothing was made up."""
    marks = ("run first ✓ completed", "run second ✓ completed", "effects: 3 reused", "↳", "\nbranch ")
    _, second, compared, _, cost = places = [told.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "Killed" in told[:second]
    assert "-Bees are in the hive." in told
    assert "+A dancer comes home," in told
    assert re.search(r"drone haiku\.1: write haiku\.txt", told[compared:cost])
    assert re.search(r"^second +2 ", told[cost:], re.MULTILINE)
    assert re.search(r"^total +5 ", told[cost:], re.MULTILINE)
    assert told.rstrip().endswith("every invariant holds")
    [shown] = [block for block in blocks(ROOT / "README.md") if block.language == "text"]
    assert differences(shown.text, told) == []
