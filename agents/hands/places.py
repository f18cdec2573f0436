"""Where an effect works: the workspace itself, a run's integration worktree, or an attempt's own.

Every attempt of a drone's task has a worktree of its own. A call that is repeated after a
lost lease starts again from the commit it was given, in a fresh worktree: whoever was
stopped in the middle may wake up and go on writing into the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agents.workspaces.workspace import Repository, Workspace
from agents.workspaces.worktrees import Attempt
from hive_bus import Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Places:
    """Finds and makes the directories that hands work in; one per process."""

    def __init__(self) -> None:
        self._repositories: dict[str, Repository] = {}

    async def repository(self, path: str) -> Repository:
        """The git repository of a workspace. Raises :class:`NotARepository`, :class:`WorkspaceMissing`."""
        known = self._repositories.get(path)
        if known is None:
            made = await Workspace.open(path).repository()
            # Two drones may ask at once: they must share one, for it keeps their git commands apart.
            known = self._repositories.setdefault(path, made)
        return known

    async def directory(self, workspace: Mapping[str, Any], record: Record) -> Path:
        """Where a ``run`` or ``tool`` step works."""
        path = str(workspace.get("path") or ".")
        if workspace.get("integration"):
            repository = await self.repository(path)
            tip = workspace.get("tip")
            return (await repository.integration(record.correlation_id, when=date_of(record), tip=tip)).path
        return Workspace.open(path).path

    async def attempt(
        self, workspace: Mapping[str, Any], record: Record, *, task_id: str, try_number: int, attempt: int
    ) -> Attempt:
        """The worktree of a drone's try, at the commit that the call starts from."""
        repository = await self.repository(str(workspace.get("path") or "."))
        base = workspace.get("commit") or workspace.get("base")
        name = str(workspace.get("worktree") or f"{task_id}.{try_number}")
        if attempt > 1:
            name = f"{task_id}.{try_number}-{record.event_id[-6:]}.{attempt}"
        task, _, number = name.rpartition(".")
        made = await repository.worktree(
            record.correlation_id, task, int(number), [str(base)] if base else (), when=date_of(record)
        )
        # One commit cannot conflict with itself.
        assert isinstance(made, Attempt), made
        return made


def date_of(record: Record) -> datetime:
    """The intent's time: equal effects make equal commits."""
    return _EPOCH + timedelta(microseconds=record.occurred_at)
