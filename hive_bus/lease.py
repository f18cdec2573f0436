"""The process's sign of life: one row in database time, renewed once, named by everything the process holds.

Groups, partitions and claimed work name the lease instead of having a time of their
own. Whether it still holds is the database's word, never this process's clock: writes
check lease and fence. The lease knows nothing of who names it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hive_bus.tasks import set_within, to_the_end
from hive_bus.telemetry import get_logger
from hive_core_db.store import Leases
from hive_errors import BusClosed, StoreError

TTL: Final = 10.0
RENEWALS: Final = 4
LATE: Final = 1 - 1 / RENEWALS
"""The part of its time after which a process whose lease was not renewed takes it that others' were not either."""
_MICROSECONDS: Final = 1_000_000

_log = get_logger(__name__)


class LeaseLost(Exception):
    """This process's lease was closed by another: it must stop everything that it held under it."""


class ProcessLease:
    """One lease row: opened, renewed four times per ``ttl`` seconds, closed.

    ``info`` is what the process says of itself: JSON values, which its owner may change in place;
    the next renewal, or ``tell``, brings them to the row.
    ``lost`` is set when a renewal says that somebody closed it: whoever names it must
    stop, and take a new lease to begin again. A process that merely slept through its
    time goes on if nobody took over. Use it as an async context manager, or ``open`` it,
    let ``run`` live in a task group, and ``close`` it. ``now`` is the database's time, in microseconds.
    """

    def __init__(
        self,
        leases: Leases,
        *,
        owner: str,
        now: Callable[[], int],
        ttl: float = TTL,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.owner = owner
        self.ttl = ttl
        self.lost = asyncio.Event()
        self._leases = leases
        self._now = now
        self._renewed_at = 0
        self._rests_until = 0
        self.opened_at = 0
        self._info: Mapping[str, Any] = info if info is not None else {}
        self._told = ""
        self._lease_id: str | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._over = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def lease_id(self) -> str:
        """The id that others name. Raises :class:`BusClosed` before ``open``."""
        if self._lease_id is None:
            raise BusClosed(what=f"lease of {self.owner}", reason="it is not open yet")
        return self._lease_id

    @property
    def usable(self) -> bool:
        """Whether it is open, neither lost nor closed, as far as this process knows."""
        return self._lease_id is not None and not self._over.is_set()

    async def open(self) -> Self:
        """Write the row; opening twice is fine. Raises what the store fails with."""
        async with self._opening:
            if self._lease_id is None:
                # Who is cancelled meanwhile must know the row all the same: nobody else could close it.
                await to_the_end(self._write())
        return self

    async def _write(self) -> None:
        self._told = json.dumps(self._info)
        lease = await self._leases.open(self.owner, ttl=round(self.ttl * _MICROSECONDS), info=self._told)
        self._lease_id, self.opened_at, self._renewed_at = lease.lease_id, lease.opened_at, self._now()

    def rest(self) -> float:
        """For how many seconds more this process leaves it to others whose leases are over; 0 as a rule.

        One that did not renew its own in time stood still, or its database was away. The others may have been in the same
        place, with everything they hold in good hands: they get the time that two renewals take, counted from its own.
        """
        if not self.usable:
            return 0.0
        if self._is_late():
            return self.ttl / RENEWALS
        return max(0, self._rests_until - self._now()) / _MICROSECONDS

    def _is_late(self) -> bool:
        return self._now() - self._renewed_at > LATE * self.ttl * _MICROSECONDS

    @property
    def told(self) -> bool:
        """Whether the row says what the process says of itself."""
        return json.dumps(self._info) == self._told

    async def tell(self) -> bool:
        """Renew now, with what the process says of itself where that has changed; whether the lease goes on.

        Raises what the store fails with.
        """
        info = json.dumps(self._info)
        news = info if info != self._told else None
        if await self._leases.renew(self.lease_id, ttl=round(self.ttl * _MICROSECONDS), info=news):
            if self._is_late():
                self._rests_until = self._now() + round(2 * self.ttl / RENEWALS * _MICROSECONDS)
            self._told, self._renewed_at = info, self._now()
            return True
        if not self._closed:
            _log.error("lease.lost", lease_id=self.lease_id, owner=self.owner)
            self._lose()
        return False

    async def raise_when_lost(self) -> None:
        """Wait until it is lost. Raises :class:`LeaseLost`."""
        await self.lost.wait()
        raise LeaseLost

    async def serve(self) -> None:
        """As ``run``, beside a bus: a store that fails for good ends the lease, not the bus."""
        try:
            await self.run()
        except StoreError:
            self._lose()

    def _lose(self) -> None:
        self.lost.set()
        self._over.set()

    async def run(self) -> None:
        """Renew until closed or lost; a store that is busy or full is asked again at the next turn."""
        every = self.ttl / RENEWALS
        while not await set_within(self._over, every):
            try:
                if not await self.tell():
                    return
            except StoreError as problem:
                if not problem.retryable:
                    raise
                _log.warning("lease.not_renewed", lease_id=self.lease_id, error=str(problem))

    async def close(self) -> None:
        """End ``run`` and the row, which frees what still names it. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._over.set()
        if self._lease_id is not None and not self.lost.is_set():
            try:
                # The last word stays: whoever looks at the closed lease sees whom it leaves unaccounted for.
                if not self.told:
                    await self.tell()
                await self._leases.close(self._lease_id)
            except StoreError as problem:
                if not problem.retryable:
                    raise
                # It ends by its time, or when somebody finds its process gone.
                _log.warning("lease.not_closed", lease_id=self._lease_id, error=str(problem))

    async def __aenter__(self) -> Self:
        await self.open()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._tasks.create_task(self.run(), name=f"lease of {self.owner}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        try:
            await self.close()
        finally:
            await self._tasks.__aexit__(kind, error, traceback)


def process_info() -> dict[str, Any]:
    """This process in a lease's ``info``: host, the system's boot and process namespace, the pid, and when it started."""
    pid = os.getpid()
    return {"host": os.uname().nodename, "system": _system(), "pid": pid, "started": _started(pid)}


async def reap_dead(leases: Leases) -> int:
    """Close the leases of processes of this system that are gone, so that nobody waits for their time; returns how many.

    A process of another system, or one that says nothing of itself, is judged by its time alone.
    """
    system, reaped = _system(), 0
    for lease in await leases.live() if system else ():
        try:
            info = json.loads(lease.info)
            other, pid, started = info["system"], int(info["pid"]), str(info["started"])
        except (ValueError, KeyError, TypeError):
            continue
        if other == system and _started(pid) != started:
            _log.warning("lease.reaped", lease_id=lease.lease_id, owner=lease.owner)
            await leases.close(lease.lease_id)
            reaped += 1
    return reaped


def _system() -> str:
    """This boot of this machine and its process namespace, in which a pid means one process; empty where nobody says."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process started, in ticks since boot; empty if there is none (a zombie is none)."""
    try:
        # The name in parentheses may hold anything; proc(5) counts the state behind the last one as field 3.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {b"Z", b"X"} else fields[19].decode()
