"""The table of sharp edges in floor 2's document names every edge, and tests that exist."""

from __future__ import annotations

import ast
import re

from tests.architecture.tree import ROOT

SECTION = (ROOT / "hive_core_db" / "doc.md").read_text().partition("## 36 sharp edges")[2]
TESTS = ROOT / "tests"


def test_every_edge_has_its_line() -> None:
    """The numbers are 1 to 36, each once, and no line is without an answer."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", SECTION, flags=re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 37))


def test_every_test_that_is_named_is_there() -> None:
    """A renamed test takes its line in the table with it."""
    missing = []
    for path, name in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", SECTION):
        there = TESTS / path
        names = (
            {node.name for node in ast.walk(ast.parse(there.read_text())) if hasattr(node, "name")}
            if there.exists()
            else None
        )
        if names is None or (name and name not in names):
            missing.append(f"{path}::{name}")
    assert missing == []
