"""The page about a brain of one's own: its programs run, and print what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "custom-brain.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OUTPUT = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    """Minutes of reminders pass in virtual time, under the purity guard."""
    page = PAGE.read_text()
    for name, text in FILE.findall(page):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "try_reminders.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout] == OUTPUT.findall(page)
