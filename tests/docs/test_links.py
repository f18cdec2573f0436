"""Every page points at what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.shown import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "hive_core_db" / "doc.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project names one, and its anchor is a heading there."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    """A path of the project in code letters is a file or a folder of it, and a named test is in its file."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    roots = "agents|benchmarks|dashboard|docs|examples|hive_bus|hive_core_db|hive_errors|tests"
    named = re.findall(rf"`((?:{roots})/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
