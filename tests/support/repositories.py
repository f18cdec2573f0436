"""Real repositories for tests: a user's git, a small checkout, and work done in a worktree of it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from agents.workspaces.workspace import Attempt, Repository

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = "0123456789"


def git(path: Path, *arguments: str) -> str:
    """Run git as a user does, with an identity and without anybody's configuration."""
    env = os.environ | {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "1767323045 +0000",
        "GIT_COMMITTER_DATE": "1767323045 +0000",
        "GIT_AUTHOR_NAME": "someone",
        "GIT_AUTHOR_EMAIL": "someone@localhost",
        "GIT_COMMITTER_NAME": "someone",
        "GIT_COMMITTER_EMAIL": "someone@localhost",
    }
    done = subprocess.run(["git", *arguments], cwd=path, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_checkout(path: Path) -> Path:
    """A user's repository on branch main with two files and one commit."""
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    (path / "one.txt").write_text("one\n")
    (path / "two.txt").write_text("two\n")
    (path / ".gitignore").write_text("*.log\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "-m", "start")
    return path


async def attempt_of(repo: Repository, task: str, number: int = 1, *needs: str) -> Attempt:
    """A worktree that must not conflict."""
    made = await repo.worktree(RUN, task, number, needs, when=WHEN)
    assert isinstance(made, Attempt)
    return made


async def changed(repo: Repository, task: str, files: dict[str, str], *needs: str) -> str:
    """Do a task: write files in a worktree of its own; the commit it leaves."""
    attempt = await attempt_of(repo, task, 1, *needs)
    for name, text in files.items():
        (attempt.path / name).write_text(text)
    return (await repo.snapshot(attempt, f"Task {task}", when=WHEN)).commit
