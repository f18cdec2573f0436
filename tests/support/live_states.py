"""The states that brains had while they lived: what every host in this process kept behind each event that it handled.

Owns how hosts are watched. What the log says about the same moments is asked by whoever compares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from hive_bus.brains.host import BrainHost, Pending
from hive_bus.brains.session import Session
from hive_bus.groups.member import Owned
from hive_bus.record import Record
from hive_core_db.records import StoredEvent

Live = defaultdict[tuple[str, str], dict[int, list[Any]]]
"""By brain and key: by position the states that hosts had when they had handled it, decisions and all."""


@contextmanager
def watched() -> Iterator[Live]:
    """Remember what hosts decide on and go on from; what is only folded from the log, by anybody, is not remembered."""
    seen: Live = defaultdict(lambda: defaultdict(list))
    step, adopt = BrainHost._step, BrainHost._adopt

    def stepping(
        self: BrainHost[Any],
        partition: Owned,
        session: Session[Any],
        record: StoredEvent,
        pending: list[Pending[Any]],
        *,
        into: Record | None = None,
    ) -> None:
        step(self, partition, session, record, pending, into=into)
        if not session.parked:
            seen[self.brain.name, session.key][record.position].append(session.state)

    def adopting(self: BrainHost[Any], rows: Sequence[StoredEvent]) -> None:
        ahead = [(session, session.ahead) for session in self._sessions.values() if session.ahead is not None]
        adopt(self, rows)
        for session, taken in ahead:
            if session.ahead is None and session.state is taken.state:
                seen[self.brain.name, session.key][session.handled].append(session.state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BrainHost, "_step", stepping)
        patch.setattr(BrainHost, "_adopt", adopting)
        yield seen
