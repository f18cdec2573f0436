"""Compares two runs of a log: reads their histories, and asks git how the trees differ that they ended with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents.workspaces.git import Git
from dashboard.views.comparison import Comparison, FileChange, compare
from hive_bus import Bus, Record
from hive_errors import GitFailed


async def read_comparison(bus: Bus, a: str, b: str, *, files: bool = True, patch: bool = False) -> Comparison:
    """Compare the runs or branches with the correlation ids ``a`` and ``b``.

    ``files`` also compares the trees that they ended with, ``patch`` the files' contents too.
    """
    first, second = await bus.history(a), await bus.history(b)
    comparison = compare(a, first, b, second)
    return await _with_files(comparison, first, second, patch=patch) if files or patch else comparison


def last_commit(records: Sequence[Record]) -> str | None:
    """The commit that a run's branch was at last: what was merged, else where it began; None without a git workspace."""
    commit: str | None = None
    for record in records:
        data = record.data if isinstance(record.data, dict) else {}
        if record.topic == "workflow.requested":
            commit = (data.get("workspace") or {}).get("base")
        elif record.topic in {"task.completed", "workflow.completed"}:
            commit = data.get("commit") or commit
    return commit


async def _with_files(
    comparison: Comparison, first: Sequence[Record], second: Sequence[Record], *, patch: bool
) -> Comparison:
    before, after = last_commit(first), last_commit(second)
    if before is None and after is None:
        return comparison
    if before is None or after is None:
        return replace(comparison, unlike="only one of them works in git")
    if before == after:
        return replace(comparison, files=())
    place = Path(comparison.b.workspace)
    if not await asyncio.to_thread(place.is_dir):
        return replace(comparison, unlike=f"there is no directory {place} here")
    git = await Git.of_user(place)
    if not all([await git.commit_of(commit) for commit in (before, after)]):
        return replace(comparison, unlike=f"{place} does not have both commits, {before[:10]} and {after[:10]}")
    try:
        states = await git.run("diff", "--name-status", "--no-renames", "-z", before, after)
        counts = await git.run("diff", "--numstat", "--no-renames", "-z", before, after)
        text = await git.run("diff", "--no-ext-diff", before, after) if patch else ""
    except GitFailed as problem:
        return replace(comparison, unlike=problem.message)
    return replace(comparison, files=tuple(_changes(states, counts)), patch=text)


def _changes(states: str, counts: str) -> list[FileChange]:
    words = states.split("\0")
    letters = dict(zip(words[1::2], words[0::2], strict=False))
    found = []
    for line in filter(None, counts.split("\0")):
        added, removed, path = line.split("\t", 2)
        found.append(
            FileChange(path=path, state=letters.get(path, "M"), added=_number(added), removed=_number(removed))
        )
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
