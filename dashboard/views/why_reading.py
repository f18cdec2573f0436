"""Finds what somebody asks about: an event or a charge by position or id, a file of a run's workspace by git."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agents.workspaces.git import Git
from dashboard.views.why import WhyView, Writer, calls_that_may_write, why, writer
from hive_bus import Bus, Record
from hive_errors import NotFound

_SHORTEST: Final = 6
_LONG: Final = 36
"""Characters of a whole event id."""


async def read_why(bus: Bus, what: str, *, run: str | None = None) -> WhyView:
    """Why ``what`` is: a position, an event's id or its first letters, or a file of the run's workspace.

    ``run`` is the correlation id that letters and files are looked for in; the last run by default. Raises :class:`NotFound`.
    """
    if what.isascii() and what.isdigit():
        rows = await bus.store.log.read(int(what) - 1, limit=1)
        if not rows or rows[0].position != int(what):
            raise NotFound(kind="event", name=what, reason="the log has no such position")
        subject = Record._make(rows[0])
        return why(subject.correlation_id, await bus.history(subject.correlation_id), subject)
    known = await bus.get(what) if len(what) == _LONG else None
    if known is not None:
        return why(known.correlation_id, await bus.history(known.correlation_id), known)
    run = run if run is not None else await bus.resolve("@")
    records = await bus.history(run)
    found = [record for record in records if len(what) >= _SHORTEST and record.event_id.startswith(what)]
    if len(found) == 1:
        return why(run, records, found[0])
    if found:
        raise NotFound(kind="event", name=what, reason=f"{len(found)} events of run {run} begin like that")
    return await _of_file(run, records, what)


async def _of_file(run: str, records: Sequence[Record], path: str) -> WhyView:
    writers: list[tuple[Writer, Record]] = []
    for intent, end, before, after in calls_that_may_write(records):
        if await _changed(intent, before, after, path):
            writers.append((writer(records, intent, end, after), end))
    if not writers:
        raise NotFound(
            kind="event or file",
            name=path,
            reason=f"no call of run {run} has written such a file, and no event of it is named so",
        )
    # What was merged is what is there; a try that was given up has left nothing.
    last = next((pair for pair in reversed(writers) if pair[0].merged), writers[-1])
    return why(run, records, last[1], what=path, writers=[one for one, _ in writers])


async def _changed(intent: Record, before: str, after: str, path: str) -> bool:
    """Whether a call changed the file, by its trees; where these are gone, by what it was given."""
    place = Path(str((intent.data.get("workspace") or {}).get("path") or "."))
    if await asyncio.to_thread(place.is_dir):
        git = await Git.of_user(place)
        result = await git.tried("diff", "--quiet", before, after, "--", path)
        if result.exit_code in {0, 1}:
            return result.exit_code == 1
    given = intent.data.get("input")
    return isinstance(given, dict) and given.get("path") == path
