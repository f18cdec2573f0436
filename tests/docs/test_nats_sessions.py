"""docs/nats.md: its sessions go as shown, with a server of the hive's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.shown import ROOT, Block, blocks, differences, play

SESSIONS = [block for block in blocks(ROOT / "docs" / "nats.md") if block.language == "console"]


@pytest.mark.parametrize("block", SESSIONS, ids=lambda block: f"line {block.line}")
async def test_a_session_goes_as_shown(block: Block, tmp_path: Path) -> None:
    """In an empty directory the real `hive` prints the lines that the page shows, but for numbers."""
    played = await play(block.text, tmp_path)
    assert {command: differences(shown, real) for command, shown, real in played} == {
        command: [] for command, _, _ in played
    }
