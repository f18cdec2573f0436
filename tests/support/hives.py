"""Whole runs in tests: a script of answers, the log as it ended, and whether it is sound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.colony import brains
from agents.hive import Hive
from agents.run import Run, RunResult
from dashboard.cli.vocabulary import queued, words
from hive_bus.bus import Bus
from hive_bus.record import Record
from hive_bus.replay.redrive import keys_of_run, redrive
from hive_core_db.audit import Vocabulary, audit
from tests.support.patience import WITHIN


def script(path: Path, **roles: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Write the answers of a scripted model; returns the model's name."""
    path.write_text(json.dumps(roles))
    return f"scripted:{path}"


def plan(*steps: Mapping[str, Any]) -> dict[str, Any]:
    """The planner's answer with these steps."""
    return {"json": {"steps": list(steps)}}


def use(name: str, **given: Any) -> dict[str, Any]:
    """An answer that uses one tool."""
    return {"tools": [{"name": name, "input": given}]}


APPROVED: Mapping[str, Any] = {"json": {"verdict": "approved", "comments": []}}
EVERYBODY_APPROVED: Mapping[str, Sequence[Mapping[str, Any]]] = {"*": [{**APPROVED, "repeat": True}]}


@asynccontextmanager
async def hive_at(url: str, workspace: Path, **options: Any) -> AsyncIterator[Hive]:
    """An open hive; when it has closed, its log passes the auditor."""
    async with Hive(url, workspace=workspace, **options) as hive:
        yield hive
    assert await asyncio.to_thread(findings, url) == []


def findings(url: str) -> list[str]:
    """What the auditor says of a database that nobody has open."""
    return list(map(str, audit(url, vocabulary=Vocabulary(**words(), queued=queued))))


async def finished(run: Run) -> tuple[RunResult, list[Record]]:
    """A run's result and its whole history, whose decisions are today's."""
    result = await run.result(within=WITHIN)
    assert await differences(run.bus, run.id) == []
    return result, await run.bus.history(run.id)


async def differences(bus: Bus, run_id: str) -> list[int]:
    """The positions at which today's brains decide otherwise than the log says."""
    head = await bus.head()
    return [
        difference.position
        for brain in brains()
        for key in await keys_of_run(bus.store.log, brain, run_id)
        async for difference in redrive(bus.store.log, brain, key, upto=head)
    ]


def bodies(records: Sequence[Record], topic: str, **given: Any) -> list[dict[str, Any]]:
    """The bodies of the events of a topic that have these values, in log order."""
    found = [record.data for record in records if record.topic == topic]
    return [body for body in found if all(body.get(name) == value for name, value in given.items())]


def topics(records: Sequence[Record]) -> list[str]:
    """The topics, in log order."""
    return [record.topic for record in records]
