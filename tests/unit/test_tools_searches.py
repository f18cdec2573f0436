"""find and grep: what they find, what they pass by, and that they end."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from agents.tool import ToolContext, ToolOutcome
from agents.tools import builtin_tools
from agents.tools.searches import translated
from tests.support.patience import WITHIN

TOOLS = builtin_tools()


async def call(root: Path, name: str, timeout: float = WITHIN, **input: object) -> ToolOutcome:  # noqa: A002
    """Call a tool in a workspace."""
    return await TOOLS.call(name, input, ToolContext(root=root, idempotency_key="key", timeout=timeout))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project with things that nobody looks for."""
    for name, text in {
        "README.md": "Hello\n",
        "src/app.py": "import os\nHELLO = 1\n",
        "src/deep/test_app.py": "hello()\n",
        "src/deep/data.bin": "hello\0",
        ".git/config": "hello",
        ".env": "hello",
        "node_modules/x/index.js": "hello",
        "src/__pycache__/app.pyc": "hello",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "link").symlink_to("src")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["src/app.py", "src/deep/test_app.py"]),
        ("src/*.py", ["src/app.py"]),
        ("src/**/*.py", ["src/app.py", "src/deep/test_app.py"]),
        ("**/test_*", ["src/deep/test_app.py"]),
        ("src/**", ["src/app.py", "src/deep/data.bin", "src/deep/test_app.py"]),
        ("./README.md", ["README.md"]),
        ("[A-Z]*", ["README.md"]),
        ("[!A-Z]*.p?", ["src/app.py", "src/deep/test_app.py"]),
        ("config", []),
        ("index.js", []),
    ],
)
async def test_find_knows_shell_patterns(tree: Path, pattern: str, found: list[str]) -> None:
    """Names anywhere, paths from the start, any depth; neither denied nor derived files, nor through links."""
    outcome = await call(tree, "find", pattern=pattern)
    assert outcome.output.splitlines() == (found or ["[no file matches]"])
    assert outcome.data == {"count": len(found)}


async def test_find_below_a_directory_matches_from_there(tree: Path) -> None:
    """The pattern is about what lies below, the answer is a path that can be read."""
    assert (await call(tree, "find", pattern="deep/*.py", path="src")).output == "src/deep/test_app.py"
    assert (await call(tree, "find", pattern="*.js", path="node_modules")).output == "node_modules/x/index.js"
    assert "HIVE-TOOL-002" in (await call(tree, "find", pattern="*", path=".git")).output


names = st.text(alphabet="ab.[]!-*?\\^", min_size=1, max_size=6)


@given(pattern=names, name=names)
def test_a_pattern_without_a_slash_is_a_shell_s(pattern: str, name: str) -> None:
    """It says of a name what the standard library's `fnmatch` says, where that has no pattern of two stars."""
    if "**" in pattern:
        return
    assert bool(regex.match(translated(pattern), name)) is fnmatchcase(name, pattern)


async def test_grep_shows_place_and_line(tree: Path) -> None:
    """path:line:text, by path; binaries are left out and counted."""
    outcome = await call(tree, "grep", pattern="[Hh]ello")
    assert outcome.output.splitlines() == [
        "README.md:1:Hello",
        "src/deep/test_app.py:1:hello()",
        "[1 binary, large or unreadable left out]",
    ]


async def test_grep_can_be_narrowed(tree: Path) -> None:
    """By directory, by file, by pattern; capital and small letters may be the same."""
    assert (
        await call(tree, "grep", pattern="hello", ignore_case=True, glob="app.py")
    ).output == "src/app.py:2:HELLO = 1"
    assert (
        await call(tree, "grep", pattern="hello", path="src/deep/test_app.py")
    ).output == "src/deep/test_app.py:1:hello()"
    assert (
        await call(tree, "grep", pattern="hello", path="link/deep", glob="*.py")
    ).output == "src/deep/test_app.py:1:hello()"
    assert (await call(tree, "grep", pattern="nothing", path="README.md")).output == "[no line matches]"
    assert "no such file" in (await call(tree, "grep", pattern="x", path="none")).output


@pytest.mark.parametrize("pattern", ["(", "[", "a{99999999999999999999}", "(?P<x", "x" * 2000])
async def test_an_expression_that_is_none_is_refused(tree: Path, pattern: str) -> None:
    """The error names the field and the place."""
    outcome = await call(tree, "grep", pattern=pattern)
    assert outcome.is_error
    assert "field 'pattern'" in outcome.output


@pytest.mark.parametrize("pattern", [r"(a|a)*b|(a+)+c", r"^(([a-z])+.)+[A-Z]([a-z])+$"])
async def test_an_expression_that_never_ends_is_ended(tree: Path, pattern: str) -> None:
    """It tries everything until the call's time is over; the event loop goes on, and what was found is kept."""
    (tree / "aaa").write_text("ab\n" + "a" * 5000 + "\n")
    began = time.monotonic()
    outcome = await call(tree, "grep", timeout=0.4, pattern=pattern)
    assert time.monotonic() - began < WITHIN
    assert "took too long" in outcome.output
    assert outcome.truncated


async def test_too_many_results_are_cut(tmp_path: Path) -> None:
    """The search stops, and says so."""
    (tmp_path / "f").write_text("x\n" * 1000)
    outcome = await call(tmp_path, "grep", pattern="x")
    assert outcome.output.endswith("f:500:x\n[stopped after 500 results]")
    for number in range(501):
        (tmp_path / f"g{number}").touch()
    outcome = await call(tmp_path, "find", pattern="g*")
    assert outcome.truncated
    assert outcome.data == {"count": 500}


async def test_a_search_without_time_stops(tree: Path) -> None:
    """A deadline that has passed ends the walk, not the process."""
    outcome = await call(tree, "find", timeout=1e-9, pattern="*")
    assert "took too long" in outcome.output
