"""Where `hive redrive` gets its histories from: the log, or a file that was exported from one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from agents.colony import brains
from dashboard.cli.shell import Shell
from hive_bus import Bus
from hive_bus.dispatch import partition_of
from hive_bus.replay import Difference, keys_of_run, redrive
from hive_bus.transfer import read_history
from hive_core_db.records import Partition, StoredEvent
from hive_core_db.store import EventLog

_STARTS = ("workflow.requested", "workflow.forked")
_PAGE = 100


async def differences_of_runs(shell: Shell, run: str | None) -> AsyncIterator[tuple[str, Difference]]:
    """What today's brains decide otherwise, of one run or (None) of all."""
    async with shell.bus() as bus:
        if run is not None:
            run_id = await bus.resolve(run)
            async for difference in _of_run(bus.store.log, run_id, _Checkpoints(bus)):
                yield run_id, difference
            return
        async for record in bus.read(*_STARTS):
            async for difference in _of_run(bus.store.log, record.correlation_id, _Checkpoints(bus)):
                yield record.correlation_id, difference


async def differences_of_file(path: Path) -> AsyncIterator[tuple[str, Difference]]:
    """What today's brains decide otherwise, of every run of an exported history. Raises :class:`HistoryUnusable`."""
    log = ListedLog(read_history(path))
    for run_id in log.runs():
        # Nothing but these reads is asked of it: redrive changes nothing and follows nothing.
        async for difference in _of_run(cast(EventLog, log), run_id, None):
            yield run_id, difference


class _Checkpoints:
    """How far brains have come: what nobody has handled yet has no decision to compare with."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._partitions: dict[str, list[Partition]] = {}

    async def of(self, brain: str, key: str) -> int:
        """The checkpoint of the partition that a key belongs to, 0 where the brain never ran."""
        if brain not in self._partitions:
            self._partitions[brain] = await self._bus.store.checkpoints.partitions(f"brain/{brain}")
        rows = self._partitions[brain]
        return rows[partition_of(key, len(rows))].position if rows else 0


async def _of_run(log: EventLog, run_id: str, checkpoints: _Checkpoints | None) -> AsyncIterator[Difference]:
    last = await log.last_of_correlation(run_id)
    for brain in brains():
        for key in await keys_of_run(log, brain, run_id):
            upto = last if checkpoints is None else await checkpoints.of(brain.name, key)
            async for difference in redrive(log, brain, key, upto=upto):
                yield difference


class ListedLog:
    """What `redrive` asks of a log, answered from a list: a run's events by correlation and by stream."""

    def __init__(self, rows: Sequence[StoredEvent]) -> None:
        self._rows = rows

    def runs(self) -> list[str]:
        """The runs that the list holds, in order."""
        return [row.correlation_id for row in self._rows if row.topic in _STARTS]

    async def read_correlation(
        self, correlation_id: str, *, after: int = 0, limit: int = _PAGE, decider: str | None = None
    ) -> list[StoredEvent]:
        """Events of a correlation with ``position > after``; with ``decider`` only that brain's decisions."""
        rows = (row for row in self._rows if row.correlation_id == correlation_id and row.position > after)
        return [row for row in rows if _decided(row, decider)][:limit]

    async def read_stream(
        self, stream: str, *, after: int = 0, limit: int = _PAGE, decider: str | None = None
    ) -> list[StoredEvent]:
        """Events of a stream with ``version > after``; with ``decider`` only that brain's decisions."""
        rows = (row for row in self._rows if row.stream == stream and row.version > after)
        return [row for row in rows if _decided(row, decider)][:limit]

    async def last_of_correlation(self, correlation_id: str) -> int:
        """The correlation's last position, 0 if it has none."""
        return max((row.position for row in self._rows if row.correlation_id == correlation_id), default=0)


def _decided(row: StoredEvent, decider: str | None) -> bool:
    return decider is None or (row.decided_by or "").partition("@")[0] == decider
