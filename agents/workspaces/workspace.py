"""Workspaces: the directory of a run, and its git repository where drones work in it.

It owns what a run sees of the user's checkout: from which commit it starts, and how its result comes back. A workflow
without prompt steps runs in :attr:`Workspace.path` itself and needs no git. It must not know steps, drones or the log.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from agents.workspaces.git import Git
from agents.workspaces.landing import DiffStat, Finished, Landing
from agents.workspaces.worktrees import Attempt, MergeConflict, Merged, Snapshot, Worktrees
from hive_errors import NotARepository, RunNotBegun, UncommittedChanges, WorkspaceMissing

__all__ = ["Attempt", "DiffStat", "Finished", "MergeConflict", "Merged", "Repository", "Snapshot", "Workspace"]

_EXCLUDED: Final = (".hive/", ".hive-tmp-*")
_INTEGRATION: Final = "integration"
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory that runs work in."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The workspace at this path. Raises :class:`WorkspaceMissing`."""
        resolved = Path(path).resolve()
        if not resolved.is_dir():
            raise WorkspaceMissing(path=str(path))
        return cls(resolved)

    async def repository(self) -> Repository:
        """Its git repository, for runs with prompt steps. Raises :class:`NotARepository`."""
        git = await Git.of_user(self.path)
        arguments = ("rev-parse", "--show-toplevel", "--git-common-dir", "--show-prefix")
        result = await git.tried(*arguments)
        if result.exit_code != 0:
            raise NotARepository(path=str(self.path), reason=result.stderr.strip().splitlines()[-1])
        top, common, prefix = [*result.output.split("\n"), "", ""][:3]
        if await git.commit_of("HEAD") is None:
            raise NotARepository(path=str(self.path), reason="it has no commit yet")
        await asyncio.to_thread(_exclude, (self.path / common).resolve())
        return Repository(git.at(Path(top)), prefix=prefix.rstrip("/"))


class Repository:
    """A git repository that a run works in; one per process and repository spares waiting, several are safe.

    Guarantees:
        - Every method can be called again after a kill at any moment, and then gives the same answer.
        - The user's index, working tree and branches change only in :meth:`finish`.
        - Commits are made by ``hive``, at the date ``when``; equal content and dates give equal commits.

    All methods raise :class:`GitFailed` for what git does not say yes to, and pass ``CancelledError`` on.
    """

    def __init__(self, git: Git, *, prefix: str = "") -> None:
        self.top = git.path
        self._git = git
        self._worktrees = Worktrees(git, prefix=prefix)
        self._landing = Landing(git)

    async def check_clean(self) -> None:
        """Raise :class:`UncommittedChanges` where the checkout has changes, new files included, that no commit holds."""
        status = await self._git.run("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
        files = [entry[3:] for entry in status.split("\0") if entry]
        if files:
            shown = ", ".join(files[:_SHOWN]) + (", ..." if len(files) > _SHOWN else "")
            raise UncommittedChanges(path=str(self.top), count=len(files), files=shown)

    async def begin(self, run_id: str, base: str | None = None, *, when: datetime, allow_dirty: bool = False) -> str:
        """Fix the commit that a run starts from, once; later calls return it whatever they ask for.

        Args:
            run_id: The run.
            base: A revision to start from, as a fork does; without it, the checkout as it is.
            when: The date of a snapshot commit.
            allow_dirty: Start from a snapshot of uncommitted changes instead of refusing them.

        Raises:
            UncommittedChanges: There are some, neither allowed nor made irrelevant by ``base``.
            NotARepository: ``base`` names no commit.
        """
        if begun := await self.begun(run_id):
            return begun
        if base is not None:
            commit = await self._git.commit_of(base)
            if commit is None:
                raise NotARepository(path=str(self.top), reason=f"{base!r} names no commit")
        elif allow_dirty:
            commit = await self._snapshot_of_checkout(run_id, when)
        else:
            await self.check_clean()
            commit = (await self._git.run("rev-parse", "HEAD")).strip()
        await self._landing.remember_target(run_id)
        # Only where there is none: of two processes that begin the same run, one decides.
        await self._git.tried("update-ref", self._landing.base_reference(run_id), commit, "0" * len(commit))
        return await self._begun(run_id)

    async def begun(self, run_id: str) -> str | None:
        """The commit that a run started from, or None where it has not begun here."""
        return await self._git.commit_of(self._landing.base_reference(run_id))

    async def worktree(
        self, run_id: str, task: str, attempt: int, base_commits: Sequence[str] = (), *, when: datetime
    ) -> Attempt | MergeConflict:
        """The worktree of an attempt, at the merge of these commits, or at the run's base where there are none.

        No other attempt ever gets it. Where it stands already it is left as it is; a lost one is made again from
        its last snapshot. Raises :class:`RunNotBegun`.
        """
        commits = list(dict.fromkeys(base_commits)) or [await self._begun(run_id)]
        return await self._worktrees.ensure(run_id, f"{task}.{attempt}", commits, when=when)

    async def snapshot(self, attempt: Attempt, message: str, *, when: datetime) -> Snapshot:
        """Commit what a worktree holds under ``refs/hive/``: after every tool call that may write.

        Ignored files are not part of it. Without a change it is the last snapshot again.
        """
        return await self._worktrees.snapshot(attempt, message, when=when)

    async def restore(self, attempt: Attempt, commit: str) -> None:
        """Put a worktree back to a snapshot, before a call whose end nobody knows runs again."""
        await self._worktrees.restore(attempt, commit)

    async def remove(self, attempt: Attempt) -> None:
        """Remove an attempt's worktree; its snapshots stay."""
        await self._worktrees.remove(attempt)

    async def integration(self, run_id: str, *, when: datetime, tip: str | None = None) -> Attempt:
        """The run's integration worktree, where ``run`` steps after prompt steps execute. Raises :class:`RunNotBegun`.

        It begins at ``tip``, as a branch's does, or where the run began.
        """
        made = await self._worktrees.ensure(run_id, _INTEGRATION, [tip or await self._begun(run_id)], when=when)
        assert isinstance(made, Attempt), "one commit cannot conflict with itself"
        return made

    async def merge(
        self, run_id: str, commit: str, message: str, *, when: datetime, tip: str | None = None
    ) -> Merged | MergeConflict:
        """Merge an accepted result into the integration worktree; one that is merged already changes nothing."""
        attempt = await self.integration(run_id, when=when, tip=tip)
        return await self._worktrees.merge(attempt, commit, message, when=when)

    async def finish(self, run_id: str, *, when: datetime, tip: str | None = None) -> Finished:
        """Give the run's result to the user: their branch fast-forwarded, or left at ``hive/<run>``.

        What steps left uncommitted in the integration worktree is committed before. Raises :class:`RunNotBegun`.
        """
        base = await self._begun(run_id)
        attempt = await self.integration(run_id, when=when, tip=tip)
        head = await self._worktrees.snapshot(attempt, "What the last steps left", when=when)
        return await self._landing.finish(run_id, base=base, head=head.commit)

    async def diff(self, old: str, new: str) -> str:
        """The unified diff between two commits or trees; running neither external programs nor converters."""
        return await self._git.run("diff", "--no-ext-diff", "--no-textconv", "--no-color", old, new, "--")

    async def diff_stat(self, old: str, new: str) -> DiffStat:
        """How much two commits or trees differ."""
        return await self._landing.stat(old, new)

    async def cleanup(self, run_id: str, *, forget: bool = False) -> None:
        """Remove a run's worktrees; with ``forget`` its snapshots too, after which it can be neither forked nor resumed."""
        await self._worktrees.remove_all(run_id)
        if forget:
            await self._landing.forget(run_id)

    async def _begun(self, run_id: str) -> str:
        begun = await self.begun(run_id)
        if begun is None:
            raise RunNotBegun(run_id=run_id, path=str(self.top))
        return begun

    async def _snapshot_of_checkout(self, run_id: str, when: datetime) -> str:
        """A commit of the checkout as it is; the user's index and files stay untouched."""
        paths = await self._git.run("rev-parse", "--path-format=absolute", "--git-path", "index", "--absolute-git-dir")
        index, directory = paths.split("\n")[:2]
        own = Path(directory) / f"hive-index-{run_id}"
        try:
            await asyncio.to_thread(_copied, Path(index), own)
            env = {"GIT_INDEX_FILE": str(own)}
            await self._git.run("add", "--all", "--", ".", env=env)
            tree = (await self._git.run("write-tree", env=env)).strip()
            head, head_tree = (await self._git.run("rev-parse", "HEAD", "HEAD^{tree}")).split()
        finally:
            own.unlink(missing_ok=True)
        if tree == head_tree:
            return head
        message = f"Uncommitted changes at the start of run {run_id}"
        return (await self._git.run("commit-tree", tree, "-p", head, "-m", message, when=when)).strip()


def _copied(index: Path, own: Path) -> None:
    """A copy of the user's index, so that files that did not change need not be read again."""
    if index.exists():
        shutil.copy2(index, own)


def _exclude(common: Path) -> None:
    """Keep the hive's own files out of `git status`, in the repository's private list."""
    path = common / "info" / "exclude"
    path.parent.mkdir(exist_ok=True)
    text = path.read_text() if path.exists() else ""
    missing = [pattern for pattern in _EXCLUDED if pattern not in text.splitlines()]
    if missing:
        with path.open("a") as file:
            file.write(
                "".join(f"{pattern}\n" for pattern in ([""] if text and not text.endswith("\n") else []) + missing)
            )
