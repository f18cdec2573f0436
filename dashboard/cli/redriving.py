"""Where `hive redrive` gets its histories from: the log, or a file that was exported from one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from agents.colony import brains
from dashboard.cli.shell import Shell
from hive_bus import Bus
from hive_bus.groups.dispatch import partition_of
from hive_bus.replay.redrive import Difference, keys_of_run, redrive
from hive_bus.replay.transfer import read_history
from hive_core_db.records import Partition, StoredEvent
from hive_core_db.store import EventLog

_STARTS = ("workflow.requested", "workflow.forked")
_PAGE = 100


async def differences(
    shell: Shell, what: Sequence[str] | None, *, each: bool = False
) -> AsyncIterator[tuple[str, Difference]]:
    """What today's brains decide otherwise, of runs and history files, or (None) of all runs; of each run the first, or all."""
    files = [name for name in what or () if name.endswith(".jsonl")]
    for name in files:
        async for found in differences_of_file(Path(name), each=each):
            yield found
    runs = [name for name in what or () if name not in files]
    if runs or not what:
        async for found in _of_log(shell, runs if what else None, each=each):
            yield found


async def differences_of_file(path: Path, *, each: bool = True) -> AsyncIterator[tuple[str, Difference]]:
    """What today's brains decide otherwise, of every run of an exported history. Raises :class:`HistoryUnusable`."""
    log = ListedLog(read_history(path))
    for run_id in log.runs():
        # Nothing but these reads is asked of it: redrive changes nothing and follows nothing.
        for difference in await _of_run(cast(EventLog, log), run_id, None, each=each):
            yield run_id, difference


async def _of_log(shell: Shell, runs: Sequence[str] | None, *, each: bool) -> AsyncIterator[tuple[str, Difference]]:
    async with shell.bus() as bus:
        checkpoints = _Checkpoints(bus)
        if runs is not None:
            for run_id in [await bus.resolve(run) for run in runs]:
                for difference in await _of_run(bus.store.log, run_id, checkpoints, each=each):
                    yield run_id, difference
            return
        async for record in bus.read(*_STARTS):
            for difference in await _of_run(bus.store.log, record.correlation_id, checkpoints, each=each):
                yield record.correlation_id, difference


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


async def _of_run(log: EventLog, run_id: str, checkpoints: _Checkpoints | None, *, each: bool) -> list[Difference]:
    """The differences of a run by position: of each key the first, and of these the first, or all of them."""
    found: list[Difference] = []
    last = await log.last_of_correlation(run_id)
    for brain in brains():
        for key in await keys_of_run(log, brain, run_id):
            upto = last if checkpoints is None else await checkpoints.of(brain.name, key)
            async for difference in redrive(log, brain, key, upto=upto):
                found.append(difference)
                if not each:
                    break
    found.sort(key=lambda difference: difference.position)
    return found if each else found[:1]


class ListedLog:
    """What `redrive` asks of a log, answered from a list: a run's events by correlation and by stream."""

    def __init__(self, rows: Sequence[StoredEvent]) -> None:
        self._rows = rows

    def runs(self) -> list[str]:
        """The runs that the list holds, in order."""
        return [row.correlation_id for row in self._rows if row.topic in _STARTS]

    async def read_correlation(
        self, correlation_id: str, *, after: int = 0, until: int | None = None, limit: int = _PAGE,
        decider: str | None = None, topics: Sequence[str] | None = None,
    ) -> list[StoredEvent]:  # fmt: skip
        """Events of a correlation with ``after < position`` (``<= until``); only a brain's decisions, or only of ``topics``."""
        rows = (row for row in self._rows if row.correlation_id == correlation_id and row.position > after)
        rows = (row for row in rows if until is None or row.position <= until)
        wanted = topics if decider is None else None
        return [row for row in rows if _decided(row, decider) and (wanted is None or row.topic in wanted)][:limit]

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
