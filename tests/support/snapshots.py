"""Snapshots as they would be made: behind every decision of a run, whoever made it and however long ago.

Owns how they come about in tests. What must hold of them is asked by whoever compares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hive_bus.brains import snapshots
from hive_bus.brains.brain import Brain
from hive_bus.brains.fold import Folder
from hive_bus.brains.past import Step, lives, load
from hive_bus.brains.session import Session
from hive_bus.brains.snapshots import Snapshots
from hive_bus.bus import Bus
from hive_bus.testing import canonical_state
from hive_core_db.records import Appended, Verdict


@contextmanager
def behind_every_decision() -> Iterator[None]:
    """However short the run is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "EVERY", 1)
        patch.setattr(snapshots, "SHARE", 1 << 62)
        yield


async def keep_all(bus: Bus, brain: Brain[Any], key: str, *, last: int) -> list[int]:
    """Keep one behind each decision that a key made in its own run, up to position ``last``; where these decisions end."""
    folder, kept = Folder(brain), Snapshots(brain, bus.store)
    session: Session[Any] = Session(key, brain.initial())
    ends: list[int] = []
    async for life in lives(brain, bus.store.log, key, upto=last):
        if life.forked is not None:
            session.state = brain.inherit(session.state, folder.seen(life.forked))
        async for page, steps in life.pages():
            for cause, decisions in steps or [Step(cause, ()) for cause in page]:
                for row in (cause, *decisions):
                    session.state = folder.fold(session.state, row)
                session.handled, session.folded = cause.position, session.folded + 1 + len(decisions)
                if decisions and life.last and cause.correlation_id == life.run:
                    verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
                    verdict.set_result(Appended(decisions[0].position, decisions[-1].position, ()))
                    with behind_every_decision():
                        kept.decided(session, verdict)
                    await kept.keep()
                    ends.append(decisions[-1].position)
    return ends


Facts = tuple[bytes, int, int, int]


async def both_ways(
    bus: Bus, folder: Folder[Any], kept: Snapshots[Any], key: str, *, upto: int
) -> tuple[int, Facts, Facts]:
    """A key from its nearest snapshot and from the beginning: how far the snapshot was (0: there was none), and both."""
    start, log = await kept.nearest(key, {}), bus.store.log
    told = [facts(await load(folder, log, key, upto=upto, start=one)) for one in (start, None)]
    return 0 if start is None else start.handled, told[0], told[1]


def facts(session: Session[Any]) -> Facts:
    """All that a host goes on from."""
    return canonical_state(session.state), session.handled, session.seen, len(session.inherits)
