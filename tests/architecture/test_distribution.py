"""What is built holds what its users need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.architecture.tree import ROOT
from tests.distribution import complaints

if TYPE_CHECKING:
    from pathlib import Path


def test_wheel_and_source_archive_are_complete(tmp_path: Path) -> None:
    """The wheel and the source archive hold all five packages, typed, with SQL and migrations, and the `hive` command."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    build = subprocess.run(command, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout + build.stderr
    assert complaints(tmp_path) == []
