"""README.md is true: its examples are files that run, its sessions print what it shows, its tests and links exist."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.shown import ROOT, Block, blocks, differences, environment, play

README = ROOT / "README.md"
BLOCKS = blocks(README)
PROGRAMS = [block for block in BLOCKS if block.output is not None]
SESSIONS = [block for block in BLOCKS if block.language == "console"]


def _name(block: Block) -> str:
    return block.file or f"line {block.line}"


def _lines(text: str) -> list[str]:
    return sorted(line.strip() for line in text.splitlines())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory with the example files in it, as after `cd examples` in a fresh clone."""
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def test_everything_that_can_be_run_is_run() -> None:
    """The blocks are the examples, their sessions, the two commands, and a part of what an example prints; nothing else claims to work."""
    languages = [block.language for block in BLOCKS if block.file is None and block.language != "console"]
    assert languages == ["sh", "text"]
    assert len(PROGRAMS) == 4
    assert len(SESSIONS) == 3


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.file], ids=_name)
def test_an_example_is_its_file(block: Block) -> None:
    """What the page shows is the file of `examples/`, to the letter."""
    assert block.text == (ROOT / str(block.file)).read_text()


@pytest.mark.parametrize("block", PROGRAMS, ids=_name)
async def test_a_program_prints_what_is_shown(block: Block, place: Path) -> None:
    """It ends well, warns of nothing, and prints the lines of the page (steps side by side take turns)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        Path(str(block.file)).name,
        cwd=place,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    assert _lines(output.decode()) == _lines(block.output or "")


@pytest.mark.parametrize("block", SESSIONS, ids=_name)
async def test_a_session_goes_as_shown(block: Block, place: Path) -> None:
    """The real `hive` prints the lines that the page shows, but for times, ids and money."""
    played = await play(block.text, place)
    assert {command: differences(shown, real) for command, shown, real in played} == {
        command: [] for command, _, _ in played
    }


PROMISES = re.findall(r"^\| .+ \| \[`(\w+)`\]\((\S+?)\) \|$", README.read_text(), flags=re.MULTILINE)


def test_promises_have_tests() -> None:
    """The table of promises is read, row by row."""
    table = README.read_text().partition("## Promises")[2].partition("\n## ")[0]
    assert len(PROMISES) == table.count("\n|") - 2 > 20


@pytest.mark.parametrize(("test", "file"), PROMISES, ids=[test for test, _ in PROMISES])
def test_a_promise_has_its_test(test: str, file: str) -> None:
    """The named test exists where the page says."""
    tree = ast.walk(ast.parse((ROOT / file).read_text()))
    assert test in {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
