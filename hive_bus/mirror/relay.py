"""The relay: tails the log and publishes every position to JetStream, where its sequence is the same number.

One relay of a log works at a time, by a lease; that two may is safety, not speed. It remembers nothing of its own: where the stream
ends is the server's word, what belongs there the log's. After every doubt it drops what was under way, reads the stream's end, proves
that what entered meanwhile is what the log says, and goes on behind it.
Where the mirror is ahead of the log or differs from it, a new epoch begins (a second time within an hour the relay stops).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import orjson

from hive_bus.bus import Bus
from hive_bus.epochs import announced, same_epoch
from hive_bus.mirror.comparison import Difference, block_of
from hive_bus.mirror.connection import Connection, cancellation_kept, connected
from hive_bus.mirror.encoding import encode
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.stream import PATIENCE, SILENCE, Mirrored, Stream, ensure, find, mirrored, must_be_ours
from hive_bus.mirror.window import ACK_SECONDS, SIZE, Window
from hive_bus.telemetry import get_logger
from hive_core_db.records import Epoch
from hive_errors import EpochOver, HiveError, StoreError
from hive_errors.mirror import MirrorDisturbed, MirrorDoubt, MirrorUnreachable

LEASE_KEY: Final = "mirror"
"""The limit of one that relays take: who has it works, the others stand by."""
PAGE: Final = 500
TICK: Final = 1.0
LOOKED_BACK: Final = 4 * SIZE
"""So many of the stream's last messages are compared at first: more than could be under way beside a foreign one."""
LONGEST_PAUSE: Final = 10.0
AGAIN_WITHIN: Final = 3600 * 1_000_000
"""Microseconds: a mirror that is disturbed twice within this time needs a person."""
DISTURBED: Final = "the mirror differed:"
"""How the reason of an epoch begins that a relay began."""

_log = get_logger(__name__)


@dataclass(slots=True)
class RelayState:
    """How far the relay is: ``working`` or standing by, the log's head and what is certainly mirrored, in positions."""

    working: bool = False
    head: int = 0
    mirrored: int = 0
    doubts: int = 0

    @property
    def lag(self) -> int:
        """How many positions the mirror is behind."""
        return max(0, self.head - self.mirrored)


class Relay:
    """Publishes a log to a NATS server until it is cancelled; ``state`` says how far it is.

    ``alone`` False lets it work beside others without the lease: slower, and as safe.
    """

    def __init__(
        self,
        bus: Bus,
        settings: NatsSettings,
        *,
        window: int = SIZE,
        ack_seconds: float = ACK_SECONDS,
        alone: bool = True,
        silence: float = SILENCE,
        patience: float = PATIENCE,
        tick: float = TICK,
    ) -> None:
        self.state = RelayState()
        self._bus, self._settings = bus, settings
        self._window, self._ack_seconds, self._alone = window, ack_seconds, alone
        self._silence, self._patience, self._every = silence, patience, tick
        self._sure: tuple[str, int] = ("", 0)
        self._ticked = 0.0

    async def run(self) -> None:
        """Relay until cancelled; a server that is away is asked again, less and less often.

        Raises :class:`MirrorNotOurs`, :class:`MirrorDisturbed`, :class:`MirrorUnsuitable`, :class:`MirrorNameInvalid`,
        :class:`MirrorClientMissing`; :class:`EpochOver` when a new epoch began, by the relay's own hand or not.
        """
        failures = 0
        while True:
            before, pause = self.state.mirrored, 0.0
            try:
                async with connected(self._settings, name=f"hive relay {self._bus.source}") as connection:
                    await self._serve(connection)
            except (MirrorUnreachable, StoreError) as problem:
                if not problem.retryable:
                    raise
                failures = 0 if self.state.mirrored > before else failures + 1
                pause = min(LONGEST_PAUSE, 0.1 * 2**failures)
                _log.warning("mirror.again", error=str(problem), seconds=pause)
            finally:
                self.state.working = False
            await asyncio.sleep(pause)

    async def serve(self) -> None:
        """As ``run``, for a process that does more than this: what stops the relay is said, also by the process's health, and the rest goes on."""
        try:
            await self.run()
        except HiveError as problem:
            self._bus.given_up["mirror"] = f"the relay stopped: {problem.message}"
            _log.error("mirror.stopped", code=problem.code, reason=problem.message, advice=problem.advice)

    async def _serve(self, connection: Connection) -> None:
        if not self._alone:
            return await self._work(connection, None)
        while True:
            lease = (await self._bus.open_lease()).lease_id
            if await self._bus.store.limits.take(LEASE_KEY, 1, lease, 1):
                try:
                    await self._work(connection, lease)
                finally:
                    self.state.working = False
                    await self._give_up(lease)
            else:
                await asyncio.sleep(TICK)
                if connection.client.is_closed:
                    raise connection.unreachable("the connection was lost")

    async def _give_up(self, lease: str) -> None:
        """Let another relay work at once."""
        try:
            await self._bus.store.limits.give(LEASE_KEY, lease, 1)
        except StoreError as problem:
            # It is free when the lease ends, at the latest.
            _log.warning("mirror.again", error=str(problem), seconds=0.0)

    async def _work(self, connection: Connection, lease: str | None) -> None:
        """Publish until this lease is lost, or something fails."""
        with self._bus.tail.reading():
            await self._relay(connection, lease)

    async def _relay(self, connection: Connection, lease: str | None) -> None:
        self.state.working = True
        fruitless = 0
        while True:
            known, last = await self._agree(connection)
            async with Window(
                connection, known.names.stream, last, size=self._window, ack_seconds=self._ack_seconds
            ) as window:
                try:
                    await self._publish(connection, known, window, lease)
                    return
                except MirrorDoubt as doubt:
                    if connection.client.is_closed:
                        raise connection.unreachable(doubt.reason) from doubt
                    self.state.doubts += 1
                    _log.warning("mirror.doubt", position=doubt.position, reason=doubt.reason)
                finally:
                    self._sure = (self._sure[0], max(last, window.sure))
                fruitless = 0 if window.sure > last else fruitless + 1
            await asyncio.sleep(min(1.0, 0.01 * 2**fruitless) if fruitless else 0)

    async def _publish(self, connection: Connection, known: Mirrored, window: Window, lease: str | None) -> None:
        log, prefix, room = self._bus.store.log, known.names.prefix, connection.max_payload
        loop = asyncio.get_running_loop()
        while True:
            rows = self._bus.tail.recent(window.sent, limit=PAGE)
            if rows is None:
                rows = await log.read(window.sent, limit=PAGE)
            if rows and (rows[0].position, rows[-1].position) != (window.sent + 1, window.sent + len(rows)):
                raise MirrorDoubt(position=window.sent, reason=f"the log goes on at {rows[0].position}")
            with cancellation_kept():
                await window.publish([encode(row, prefix, max_payload=room) for row in rows])
            self.state.mirrored = window.sure
            if not rows:
                await window.settle()
                self.state.mirrored = window.sure
                await self._bus.tail.wait(window.sent, timeout=max(0.0, self._ticked + self._every - loop.time()))
            if loop.time() >= self._ticked + self._every:
                self._ticked = loop.time()
                if not await self._tick(connection, known, window, lease):
                    await window.settle()
                    return

    async def _tick(self, connection: Connection, known: Mirrored, window: Window, lease: str | None) -> bool:
        """Look whether all is as it was, and say how far log and mirror are; False: the lease is another's."""
        head = self.state.head = await self._bus.tail.refresh()
        await same_epoch(self._bus.store, self._bus.writer.epoch)
        stream = await find(connection, known.names.stream)
        if stream is None or stream.created != self._sure[0]:
            raise MirrorDoubt(position=self.state.mirrored, reason="the stream is gone, or is another one")
        must_be_ours(stream, known)
        if stream.last > window.sent:
            raise MirrorDoubt(position=window.sure, reason=f"somebody else published up to {stream.last}")
        said = {"log_id": known.meta.log_id, "epoch": known.epoch.number, "epoch_id": known.epoch.epoch_id}
        await connection.publish(
            known.names.head, orjson.dumps({**said, "head": head, "mirrored": self.state.mirrored})
        )
        _log.debug("mirror.lag", positions=self.state.lag, head=head)
        return lease is None or (await self._bus.open_lease()).lease_id == lease

    async def _agree(self, connection: Connection) -> tuple[Mirrored, int]:
        """Find or make the stream, prove that its end is what the log says, and return where it ends."""
        log = self._bus.store.log
        known = mirrored(await log.meta(), await log.epochs())
        await same_epoch(self._bus.store, self._bus.writer.epoch)
        stream = await ensure(connection, known, self._settings, silence=self._silence, patience=self._patience)
        created, sure = self._sure
        if stream.created != created:
            sure = 0
        # Where the server's own copy of the end was lost, what was certain is so no more.
        sure = min(sure, stream.last)
        await self._prove(connection, known, stream, sure)
        self._sure = (stream.created, stream.last)
        self.state.mirrored = stream.last
        # Asked after the stream: what is there must be here already.
        self.state.head = await self._bus.tail.refresh()
        return known, stream.last

    async def _prove(self, connection: Connection, known: Mirrored, stream: Stream, sure: int) -> None:
        first = max(stream.first, sure + 1 if sure else stream.last - LOOKED_BACK + 1)
        while first <= stream.last:
            until = min(stream.last, first + PAGE - 1)
            _, differences = await block_of(self._bus.store.log, connection, known, first, until)
            if differences:
                await self._disturbed(connection, known, stream, differences[0])
            first = until + 1

    async def _disturbed(self, connection: Connection, known: Mirrored, stream: Stream, difference: Difference) -> None:
        """Begin a new epoch above all that the mirror has shown, or stop if one began so within the hour. Always raises."""
        now = await find(connection, stream.name)
        if now is None or now.created != stream.created or now.first > difference.position:
            raise connection.unreachable("the stream changed while it was compared")
        if difference.kind == "missing":
            raise connection.unreachable(f"it does not show position {difference.position}, which its stream has")
        reason = _reason(known, difference)
        present = known.epoch
        if present.reason.startswith(DISTURBED) and self._bus.now() - present.began_at < AGAIN_WITHIN:
            raise MirrorDisturbed(
                stream=stream.name, position=difference.position, reason=difference.reason, subjects=known.names.events
            )
        began = await self._begin_epoch(known, now.last, reason)
        _log.error("mirror.differs", position=difference.position, reason=reason, epoch=began.number)
        raise EpochOver(url=self._bus.store.url, held=known.meta.epoch, actual=began.number)

    async def _begin_epoch(self, known: Mirrored, shown: int, reason: str) -> Epoch:
        store = self._bus.store
        began = await store.log.begin_epoch(reason, epoch=known.meta.epoch, above=shown)
        await announced(store, source=self._bus.source)
        return began


def _reason(known: Mirrored, difference: Difference) -> str:
    said = f"{DISTURBED} position {difference.position}, {difference.reason}"
    if difference.kind == "foreign":
        said += f"; only the relay may publish to {known.names.events}: take that permission from all other users"
    return said
