"""Asks the log for its runs, the newest first, as they are or as they were at a moment of the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from dashboard.views.run import RunView
from dashboard.views.run_fold import is_run, run_view
from hive_bus import Bus

_STARTS: Final = ("workflow.requested", "workflow.forked")
_PAGE: Final = 50


async def newest_runs(
    bus: Bus, *, limit: int, status: str | None = None, at: int | None = None
) -> AsyncIterator[RunView]:
    """At most ``limit`` runs that began at or before position ``at``, in this state if one is named."""
    before = None if at is None else at + 1
    given = 0
    while rows := await bus.store.log.latest(_STARTS, limit=min(limit, _PAGE), before=before):
        # Read together: twenty questions in turn would wait for one another's answers.
        histories = await asyncio.gather(*(bus.history(row.correlation_id, at=at) for row in rows))
        for row, records in zip(rows, histories, strict=True):
            view = run_view(records)
            # Whoever asked for a run twice gets it once; a branch begins behind what it inherits.
            began = next((record.position for record in records if record.correlation_id == row.correlation_id), 0)
            if view is None or not is_run(records) or began != row.position:
                continue
            if status in {None, view.status}:
                yield view
                given += 1
                if given == limit:
                    return
        before = rows[-1].position
