"""How a run's result comes back to the user's branch.

It owns ``refs/hive/<run>/{base,target,landing}`` and the branch ``hive/<run>``. It must not know worktrees or tasks.

``base`` is where the run started, ``target`` a symbolic reference to the branch that was checked out then. ``landing``
is written before the user's files change: after a kill in the middle it says whose half-done work is lying there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from agents.workspaces.git import Git
from agents.workspaces.worktrees import quoted

__all__ = ["DiffStat", "Finished", "Landing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffStat:
    """How much two commits differ, in files and lines; a binary file counts no lines."""

    files: int
    insertions: int
    deletions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Where a run's result is.

    Attributes:
        commit: The result.
        changed: Whether it differs from where the run started.
        fast_forwarded: Whether the user's branch holds it now.
        target: The user's branch, without ``refs/heads/``; None where none was checked out.
        branch: ``hive/<run>``, which holds the result where the user's branch does not.
        merge_command: What brings it to the user's branch, None where nothing is to do.
        reason: Why the branch was not fast-forwarded, empty where it was.
        stat: The difference to where the run started.
    """

    commit: str
    changed: bool
    fast_forwarded: bool
    target: str | None
    branch: str
    merge_command: str | None
    reason: str
    stat: DiffStat


class Landing:
    """Brings results back; one per repository."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._lock = asyncio.Lock()

    def base_reference(self, run_id: str) -> str:
        """The reference of the commit that a run started from."""
        return _reference(run_id, "base")

    async def remember_target(self, run_id: str) -> None:
        """Note which branch is checked out, to come back to."""
        head = await self._git.tried("symbolic-ref", "--quiet", "HEAD")
        if head.exit_code == 0:
            await self._git.run("symbolic-ref", _reference(run_id, "target"), head.output.strip())

    async def finish(self, run_id: str, *, base: str, head: str) -> Finished:
        """Fast-forward the user's branch to ``head`` where that is safe, else leave it at ``hive/<run>``."""
        branch = f"hive/{quoted(run_id)}"
        target = await self._target(run_id)
        async with self._lock:
            if head != base:
                await self._git.run("update-ref", f"refs/heads/{branch}", head)
            reason = "" if head == base else await self._forwarded(run_id, target, head)
            if not reason:
                await self._git.run("update-ref", "-d", f"refs/heads/{branch}")
                await self._git.run("update-ref", "-d", _reference(run_id, "landing"))
        return Finished(
            commit=head,
            changed=head != base,
            fast_forwarded=head != base and not reason,
            target=target.removeprefix("refs/heads/") if target else None,
            branch=branch,
            merge_command=f"git merge {branch}" if reason else None,
            reason=reason,
            stat=await self.stat(base, head),
        )

    async def stat(self, old: str, new: str) -> DiffStat:
        """How much two commits or trees differ."""
        arguments = ("diff", "--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", old, new, "--")
        rows = [row.split("\t", 2) for row in (await self._git.run(*arguments)).split("\0") if row]
        insertions, deletions = (sum(int(row[at]) for row in rows if row[at] != "-") for at in (0, 1))
        return DiffStat(files=len(rows), insertions=insertions, deletions=deletions)

    async def forget(self, run_id: str) -> None:
        """Delete everything that the repository remembers of a run, except the branch that may hold its result."""
        names = await self._git.run("for-each-ref", "--format=%(refname)", f"refs/hive/{quoted(run_id)}/")
        for name in names.split():
            await self._git.run("update-ref", "--no-deref", "-d", name)

    async def _target(self, run_id: str) -> str | None:
        found = await self._git.tried("symbolic-ref", "--quiet", _reference(run_id, "target"))
        return found.output.strip() if found.exit_code == 0 else None

    async def _forwarded(self, run_id: str, target: str | None, head: str) -> str:
        """Move the branch; an empty string, or the reason why not."""
        current = await self._git.commit_of(target) if target else None
        if target is None or current is None:
            return "no branch was checked out when the run started" if target is None else f"{target} is gone"
        name = target.removeprefix("refs/heads/")
        if await self._git.is_ancestor(head, current):
            return ""
        if not await self._git.is_ancestor(current, head):
            return f"branch {name} has moved"
        place = await self._checkout_of(target)
        if place is None:
            moved = await self._git.tried("update-ref", target, head, current)
            return "" if moved.exit_code == 0 else f"branch {name} has moved"
        if place != self._git.path:
            return f"branch {name} is checked out in {place}"
        return await self._forward_checkout(run_id, current, head)

    async def _forward_checkout(self, run_id: str, current: str, head: str) -> str:
        landing = _reference(run_id, "landing")
        was_landing = await self._git.commit_of(landing) == head
        if await self._is_dirty():
            if was_landing and await self._is_half_landed(current, head):
                await self._complete(head)
                return ""
            return "the checkout has uncommitted changes"
        await self._git.run("update-ref", landing, head)
        merged = await self._git.tried("merge", "--quiet", "--ff-only", "--no-verify", "--no-stat", head)
        if merged.exit_code == 0:
            return ""
        await self._git.run("update-ref", "-d", landing)
        return f"git would not fast-forward it: {' '.join(merged.stderr.split())[:300]}"

    async def _is_dirty(self) -> bool:
        """Whether tracked files differ; a file that git does not know is in nobody's way until git says so."""
        return bool(await self._git.run("status", "--porcelain=v1", "--untracked-files=no"))

    async def _is_half_landed(self, current: str, head: str) -> bool:
        """Whether every difference in the checkout is one that our own killed fast-forward made."""
        not_old = await self._differing_from(current)
        not_new = await self._differing_from(head)
        return not (not_old & not_new)

    async def _differing_from(self, commit: str) -> set[str]:
        directory = (await self._git.run("rev-parse", "--absolute-git-dir")).strip()
        own = Path(directory) / f"hive-landing-{commit}"
        env = {"GIT_INDEX_FILE": str(own)}
        try:
            await self._git.run("read-tree", commit, env=env)
            await self._git.tried("update-index", "-q", "--refresh", env=env)
            names = await self._git.run("diff-files", "--name-only", "-z", env=env)
        finally:
            own.unlink(missing_ok=True)
        return {name for name in names.split("\0") if name}

    async def _complete(self, head: str) -> None:
        arguments = ("reset", "--quiet", "--hard", head)
        result = await self._git.tried(*arguments)
        if result.exit_code != 0 and "index.lock" in result.stderr:
            # We were killed while our git held it, and nobody has given it up during the whole wait.
            lock = await self._git.run("rev-parse", "--path-format=absolute", "--git-path", "index.lock")
            await asyncio.to_thread(Path(lock.strip()).unlink, missing_ok=True)
            result = await self._git.tried(*arguments)
        if result.exit_code != 0:
            raise self._git.failure(arguments, result)

    async def _checkout_of(self, branch: str) -> Path | None:
        place: Path | None = None
        for line in (await self._git.run("worktree", "list", "--porcelain")).splitlines():
            if line.startswith("worktree "):
                place = Path(line.removeprefix("worktree "))
            elif line == f"branch {branch}":
                return place
        return None


def _reference(run_id: str, end: str) -> str:
    return f"refs/hive/{quoted(run_id)}/{end}"
