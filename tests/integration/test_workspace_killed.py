"""A run in a workspace that is killed with -9, at any git command, and started again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.repositories import git, make_checkout

ROOT = Path(__file__).resolve().parents[2]


def started(path: Path, *, die_at: int = 0, after: float = -1.0) -> subprocess.CompletedProcess[str]:
    """Do the run in a process of its own, which may kill itself."""
    arguments = [sys.executable, "-m", "tests.support.workspace_run", str(path), str(die_at), str(after)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


def state(path: Path) -> tuple[str, ...]:
    """What the user sees at the end."""
    files = [f"{file.name}: {file.read_text()}" for file in sorted(path.iterdir()) if file.is_file()]
    return (
        git(path, "rev-parse", "HEAD", "main"),
        git(path, "status", "--porcelain"),
        git(path, "worktree", "list", "--porcelain").partition("\n")[2],
        git(path, "for-each-ref", "--format=%(refname) %(objectname)"),
        *files,
    )


@pytest.mark.may_block("the runs are processes that the test waits for")
def test_a_run_killed_at_any_git_command_ends_the_same(tmp_path: Path, fault_seconds: float) -> None:
    """Kill it before or in the middle of a git command, start it again: commits, files and references are those of an undisturbed run."""
    calm = make_checkout(tmp_path / "calm")
    result, needs, commands = started(calm).stdout.split()
    points = list(range(1, int(commands) + 1))
    random.Random(7).shuffle(points)
    deadline = time.monotonic() + fault_seconds
    killed = 0
    for point in points:
        after = (-1.0, 0.001, 0.003)[point % 3]
        path = make_checkout(tmp_path / f"killed-{point}")
        first = started(path, die_at=point, after=after)
        killed += first.returncode != 0
        again = started(path)
        assert again.returncode == 0, f"killed at command {point} after {after} s: {again.stderr}"
        assert again.stdout.split()[:2] == [result, needs]
        assert state(path) == state(calm), f"killed at command {point} after {after} s"
        # A command that was quicker than its killer was not killed: that is no sample.
        if killed and time.monotonic() > deadline:
            break
    assert killed > 0
