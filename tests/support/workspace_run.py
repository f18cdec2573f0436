"""A whole run in a workspace that dies at its n-th git command: ``python -m tests.support.workspace_run DIR N SECONDS``.

It does what the hive does with a repository, in its order: begin, two attempts, their snapshots, merges, the end. With N of 0 it
lives. SECONDS is how long after the start of the n-th git command it sends itself SIGKILL; a negative number is right before it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from agents.workspaces.git import Git, GitResult
from agents.workspaces.workspace import Attempt, Merged, Workspace
from tests.support.repositories import RUN, WHEN

_original = Git._once
_calls = 0


def die() -> None:
    """End like a process that somebody kills with -9."""
    os.kill(os.getpid(), signal.SIGKILL)


async def run(path: Path) -> str:
    """Do the run, whatever an earlier one has done already; the commit of its result."""
    repo = await Workspace.open(path).repository()
    await repo.begin(RUN, when=WHEN)
    commits = []
    for task, name in (("a", "one.txt"), ("b", "two.txt")):
        attempt = await repo.worktree(RUN, task, 1, when=WHEN)
        assert isinstance(attempt, Attempt)
        await repo.restore(attempt, attempt.base_commit)
        (attempt.path / name).write_text(f"from {task}\n" * 500)
        (attempt.path / f"new-{task}.txt").write_text(f"new {task}\n")
        commits.append((await repo.snapshot(attempt, f"Task {task}", when=WHEN)).commit)
    both = await repo.worktree(RUN, "c", 1, commits, when=WHEN)
    assert isinstance(both, Attempt)
    for commit in commits:
        assert isinstance(await repo.merge(RUN, commit, "Accept", when=WHEN), Merged)
    finished = await repo.finish(RUN, when=WHEN)
    assert finished.fast_forwarded, finished.reason
    await repo.cleanup(RUN)
    return f"{finished.commit} {both.base_commit}"


def main() -> None:
    """Run once, and say the result and the number of git commands."""
    at, delay = int(sys.argv[2]), float(sys.argv[3])

    async def counted(
        self: Git, arguments: tuple[str, ...], when: datetime | None, env: Mapping[str, str]
    ) -> GitResult:
        global _calls  # noqa: PLW0603
        _calls += 1
        if _calls == at and delay < 0:
            die()
        if _calls == at:
            threading.Timer(delay, die).start()
        return await _original(self, arguments, when, env)

    Git._once = counted  # type: ignore[method-assign]
    result = asyncio.run(run(Path(sys.argv[1])))
    sys.stdout.write(f"{result} {_calls}\n")


if __name__ == "__main__":
    main()
