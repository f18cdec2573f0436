"""Worktrees: a directory for every attempt, its snapshots, and merges.

It owns ``.hive/worktrees/<run>/`` and the references ``refs/hive/<run>/worktrees/<name>/{base,head}``: ``base`` is
where a worktree began, ``head`` its last snapshot. It must not know tasks' states, nor the user's branches.

Everything can be called again after a kill at any moment: a reference is written when what it names is whole, and a
worktree without its mark (``hive-ready`` in git's own directory for it) was never finished and is made anew.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote
from weakref import WeakValueDictionary

from agents.workspaces.git import Git

__all__ = ["Attempt", "MergeConflict", "Merged", "Snapshot", "Worktrees", "quoted", "reference"]

_READY: Final = "hive-ready"
# git 2.39 says this of a worktree whose making was cut off, whatever worktree it was asked about.
_HALF_MADE: Final = re.compile(r"failed to read (.+/commondir)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A worktree that belongs to one attempt of one task, or to a run's integration.

    Attributes:
        run_id: The run.
        name: ``<task>.<attempt>``, or ``integration``.
        path: Where tools work: the workspace's place in the worktree.
        worktree: The worktree's top; the same as ``path`` unless the workspace is a part of a repository.
        base_commit: Where it began.
    """

    run_id: str
    name: str
    path: Path
    worktree: Path
    base_commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a worktree held: a commit under ``refs/hive/``, and its tree for the effect key."""

    commit: str
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A merge went through; ``commit`` is the new head."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeConflict:
    """A merge did not go through, and left nothing behind; ``files`` are the paths where the sides disagree."""

    files: tuple[str, ...]
    ours: str
    theirs: str


class Worktrees:
    """The worktrees of one repository."""

    def __init__(self, git: Git, *, prefix: str) -> None:
        self._git = git
        self._prefix = prefix
        self._directory = git.path / ".hive" / "worktrees"
        # git's own locks guard the repository between processes; these spare the waiting within one.
        self._adding = asyncio.Lock()
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def ensure(
        self, run_id: str, name: str, commits: Sequence[str], *, when: datetime
    ) -> Attempt | MergeConflict:
        """The worktree of that name at the merge of these commits; one that stands already stays as it is."""
        path = self._directory / quoted(run_id) / quoted(name)
        async with self._lock(path):
            base = await self._git.commit_of(reference(run_id, name, "base"))
            head = await self._git.commit_of(reference(run_id, name, "head")) if base else None
            if base is None or head is None:
                made = await self._begun(run_id, name, path, commits, when)
                if isinstance(made, MergeConflict):
                    return made
                base = made
            elif not await asyncio.to_thread(_stands, path):
                await self._add(path, head)
                await asyncio.to_thread(_mark, path)
        return Attempt(run_id=run_id, name=name, path=path / self._prefix, worktree=path, base_commit=base)

    async def snapshot(self, attempt: Attempt, message: str, *, when: datetime) -> Snapshot:
        """Commit everything that git does not ignore; the same answer again where nothing changed."""
        async with self._lock(attempt.worktree):
            return await self._snapshot(attempt, message, when)

    async def restore(self, attempt: Attempt, commit: str) -> None:
        """Put a worktree back to a commit, for a tool call whose end nobody knows. What git ignores stays."""
        async with self._lock(attempt.worktree):
            git = self._git.at(attempt.worktree)
            await asyncio.to_thread(_unlock, attempt.worktree)
            await git.run("checkout", "--quiet", "--force", "--detach", commit)
            await git.run("clean", "-ffdq")
            await git.run("update-ref", reference(attempt.run_id, attempt.name, "head"), commit)

    async def merge(self, attempt: Attempt, commit: str, message: str, *, when: datetime) -> Merged | MergeConflict:
        """Merge a commit into a worktree; what was left there uncommitted is committed before."""
        async with self._lock(attempt.worktree):
            git = self._git.at(attempt.worktree)
            if await asyncio.to_thread(_in_merge, attempt.worktree):
                # A kill in mid-merge: everything else was in a snapshot before it began.
                await git.run("reset", "--quiet", "--hard")
            before = await self._snapshot(attempt, "What earlier steps left", when)
            if await git.is_ancestor(commit, before.commit):
                return Merged(commit=before.commit)
            if conflict := await _merge(git, commit, message, ours=before.commit, when=when):
                return conflict
            after = await self._snapshot(attempt, message, when)
            return Merged(commit=after.commit)

    async def remove(self, attempt: Attempt) -> None:
        """Remove a worktree; its snapshots stay. Removing it twice is fine."""
        async with self._lock(attempt.worktree):
            await self._remove(attempt.worktree)

    async def remove_all(self, run_id: str) -> None:
        """Remove every worktree of a run; the snapshots stay."""
        directory = self._directory / quoted(run_id)
        for path in await asyncio.to_thread(_children, directory):
            async with self._lock(path):
                await self._remove(path)
        await asyncio.to_thread(_remove_tree, directory)

    async def _begun(
        self, run_id: str, name: str, path: Path, commits: Sequence[str], when: datetime
    ) -> str | MergeConflict:
        first, *others = commits
        await self._add(path, first)
        git = self._git.at(path)
        for commit in others:
            ours = await git.commit_of("HEAD") or first
            if await git.is_ancestor(commit, ours):
                continue
            if conflict := await _merge(git, commit, "Merge what the task needs", ours=ours, when=when):
                await self._remove(path)
                return conflict
        base = (await git.run("rev-parse", "HEAD")).strip()
        await asyncio.to_thread(_mark, path)
        # `head` last: as long as it is missing the worktree has not begun.
        for end in ("base", "head"):
            await git.run("update-ref", reference(run_id, name, end), base)
        return base

    async def _add(self, path: Path, commit: str) -> None:
        await self._remove(path)
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await self._command("add", "--quiet", "--force", "--detach", str(path), commit)

    async def _remove(self, path: Path) -> None:
        # The directory first: git refuses to remove a worktree that it no longer understands. And never `prune`,
        # which would also forget worktrees of the user that are only not mounted now.
        await asyncio.to_thread(_remove_tree, path)
        await self._command("remove", "--force", "--force", str(path), fine="is not a working tree")

    async def _command(self, *arguments: str, fine: str | None = None) -> None:
        """Run a command on worktrees; a failure that says ``fine`` is none."""
        arguments = ("worktree", *arguments)
        async with self._adding:
            result = await self._git.tried(*arguments)
            if result.exit_code != 0 and (half := _HALF_MADE.search(result.stderr)) is not None:
                await asyncio.to_thread(self._mend, self._git.path / half.group(1))
                result = await self._git.tried(*arguments)
        if result.exit_code != 0 and (fine is None or fine not in result.stderr):
            raise self._git.failure(arguments, result)

    def _mend(self, link: Path) -> None:
        """Finish what a killed `git worktree add` began: with that file empty, git refuses every command on worktrees."""
        try:
            worktree = Path(link.with_name("gitdir").read_text().strip())
            ours = worktree.resolve().is_relative_to(self._directory.resolve())
            if ours and link.stat().st_size == 0:
                # What git itself writes there, always.
                link.write_text("../..\n")
        except FileNotFoundError:
            # Somebody has removed it meanwhile: then nothing is in the way.
            return

    async def _snapshot(self, attempt: Attempt, message: str, when: datetime) -> Snapshot:
        git = self._git.at(attempt.worktree)
        await self._stage(attempt.worktree)
        tree = (await git.run("write-tree")).strip()
        name = reference(attempt.run_id, attempt.name, "head")
        known = (await git.run("rev-parse", "HEAD", "HEAD^{tree}", name)).split()
        commit, old_tree, recorded = known
        if tree != old_tree:
            parent = commit
            commit = (await git.run("commit-tree", tree, "-p", parent, "-m", message, when=when)).strip()
            # Not through a branch that a command may have checked out here: that one is not ours to move.
            await git.run("update-ref", "--no-deref", "HEAD", commit, parent)
        if commit != recorded:
            await git.run("update-ref", name, commit)
        return Snapshot(commit=commit, tree=tree)

    async def _stage(self, worktree: Path) -> None:
        git = self._git.at(worktree)
        arguments = ("add", "--all", "--", ".")
        result = await git.tried(*arguments)
        if result.exit_code != 0 and "index.lock" in result.stderr:
            # Only commands of this attempt work here, and each is ended whole: the lock is a killed git's.
            await asyncio.to_thread(_unlock, worktree)
            result = await git.tried(*arguments)
        if result.exit_code != 0:
            raise git.failure(arguments, result)

    def _lock(self, path: Path) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())


def reference(run_id: str, name: str, end: str) -> str:
    """The reference of a worktree's ``base`` or ``head``."""
    return f"refs/hive/{quoted(run_id)}/worktrees/{quoted(name)}/{end}"


def quoted(name: str) -> str:
    """A name that is a file's and a reference's: nothing in it means anything to either."""
    quoted = quote(name, safe="").replace("~", "%7E")
    # A reference's part neither begins with a dot, nor ends in `.lock`, nor has two dots in a row.
    if quoted.startswith(".") or quoted.endswith((".", ".lock")) or ".." in quoted:
        quoted = quoted.replace(".", "%2E")
    return quoted


async def _merge(git: Git, commit: str, message: str, *, ours: str, when: datetime) -> MergeConflict | None:
    arguments = ("merge", "--quiet", "--ff", "--no-edit", "--no-verify", "--no-stat", "-m", message, commit)
    result = await git.tried(*arguments, when=when)
    if result.exit_code == 0:
        return None
    unmerged = await git.run("diff", "--name-only", "--diff-filter=U", "-z")
    await git.run("reset", "--quiet", "--hard", ours)
    files = tuple(sorted({name for name in unmerged.split("\0") if name}))
    if not files:
        raise git.failure(arguments, result)
    return MergeConflict(files=files, ours=ours, theirs=commit)


def _admin(worktree: Path) -> Path | None:
    """The directory that git keeps for a worktree, or None where this is none."""
    try:
        text = (worktree / ".git").read_text()
    except OSError:
        return None
    return Path(text.removeprefix("gitdir: ").strip()) if text.startswith("gitdir: ") else None


def _stands(worktree: Path) -> bool:
    admin = _admin(worktree)
    return admin is not None and (admin / "HEAD").exists() and (admin / _READY).exists()


def _mark(worktree: Path) -> None:
    if admin := _admin(worktree):
        (admin / _READY).touch()


def _in_merge(worktree: Path) -> bool:
    admin = _admin(worktree)
    return admin is not None and (admin / "MERGE_HEAD").exists()


def _unlock(worktree: Path) -> None:
    if admin := _admin(worktree):
        (admin / "index.lock").unlink(missing_ok=True)


def _children(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        # A directory without write permission keeps its entries: some package caches are made like that.
        path.chmod(stat.S_IRWXU)
        for directory, names, _ in os.walk(path):
            for below in (Path(directory, name) for name in names):
                if not below.is_symlink():
                    below.chmod(stat.S_IRWXU)
        shutil.rmtree(path)
