"""Signals over core NATS: every process of a hive hears what is said in the others, while it is said.

Owns the way there and back; what a signal means is ``hive_bus.signals``'s. Nothing is kept for a server that is away, and
nobody who works waits for one: what cannot be sent now is worth nothing later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from hive_bus.bus import Bus
from hive_bus.mirror.connection import Connection, cancellation_kept, connected
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.stream import Mirrored, mirrored
from hive_bus.signals import EVERYBODY, Signal
from hive_bus.telemetry import get_logger
from hive_bus.voice import EVERY
from hive_errors import HiveError, StoreError
from hive_errors.mirror import MirrorUnreachable, MirrorUnsuitable

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

WAITING: Final = 256
"""Signals that wait to be sent; the oldest give way."""
AT_ONCE: Final = 50
"""So many are sent in a row, then others have their turn: a process sends a thousand in a second at most."""
LONGEST_PAUSE: Final = 10.0
_UNHEARD_MESSAGES: Final = 1024
_UNHEARD_BYTES: Final = 4 * 1024 * 1024

_log = get_logger(__name__)


class NatsSignals:
    """Carries the signals of a bus over a NATS server until it is cancelled.

    ``listening_to`` are the runs that the server was asked for; ``*`` stands for all.
    """

    def __init__(self, bus: Bus, settings: NatsSettings) -> None:
        self.listening_to: frozenset[str] = frozenset()
        self._bus, self._settings = bus, settings
        self._waiting: deque[Signal] = deque()
        self._wake = asyncio.Event()
        self._heard: dict[str, Subscription] = {}

    def put(self, signal: Signal) -> None:
        """Take one along."""
        if len(self._waiting) == WAITING:
            self._waiting.popleft()
            self._bus.signals.lose()
        self._waiting.append(signal)
        self._wake.set()

    def listening(self) -> None:
        """Who listens here has changed."""
        self._wake.set()

    async def serve(self) -> None:
        """Carry until cancelled; a server that is away is asked again, less and less often, and other trouble is said."""
        failures = 0
        while True:
            pause = 0.0
            try:
                known = mirrored(await self._bus.store.log.meta(), await self._bus.store.log.epochs())
                # What a program said itself it has heard already.
                async with connected(self._settings, name=f"hive signals {self._bus.source}", echo=False) as connection:
                    failures = 0
                    await self._carry(connection, known)
            except (MirrorUnreachable, StoreError) as problem:
                failures += 1
                pause = min(LONGEST_PAUSE, 0.1 * 2**failures)
                _log.warning("signals.again", error=str(problem), seconds=pause)
            except HiveError as problem:
                _log.error("signals.stopped", code=problem.code, reason=problem.message, advice=problem.advice)
                return
            await asyncio.sleep(pause)

    async def _carry(self, connection: Connection, known: Mirrored) -> None:
        """Send and hear until the connection ends. Raises :class:`MirrorUnreachable`, :class:`MirrorUnsuitable`."""
        from nats.errors import Error

        forget = connection.when_lost(self._wake.set)
        try:
            with self._bus.signals.carried(self):
                while not connection.client.is_closed:
                    self._wake.clear()
                    with cancellation_kept():
                        await self._listen(connection, known)
                        sent = await self._send(connection, known)
                    _allowed(connection, known)
                    # A pause behind each round bounds the rate; what comes meanwhile goes out together.
                    await (asyncio.sleep(EVERY) if sent else self._wake.wait())
        except (Error, OSError) as problem:
            raise connection.unreachable(problem) from problem
        finally:
            forget()
            self._waiting.clear()
            self._heard.clear()
            self.listening_to = frozenset()
        raise connection.unreachable("the connection was lost")

    async def _send(self, connection: Connection, known: Mirrored) -> int:
        number = min(AT_ONCE, len(self._waiting))
        for _ in range(number):
            signal = self._waiting.popleft()
            subject = f"{known.names.signals}{token(signal.run)}.{signal.kind}"
            await connection.client.publish(subject, encode(signal, known))
        return number

    async def _listen(self, connection: Connection, known: Mirrored) -> None:
        """Hear from the server what somebody here wants to hear."""
        wanted = self._bus.signals.wanted_runs
        if wanted == self.listening_to:
            return

        async def hear(message: Msg) -> None:
            signal = decode(message.data, known)
            if signal is not None:
                self._bus.signals.deliver(signal)

        for run in self._heard.keys() - wanted:
            await connection.end(self._heard.pop(run))
        for run in wanted - self._heard.keys():
            subject = f"{known.names.signals}{EVERYBODY if run == EVERYBODY else token(run)}.*"
            self._heard[run] = await connection.client.subscribe(
                subject, cb=hear, pending_msgs_limit=_UNHEARD_MESSAGES, pending_bytes_limit=_UNHEARD_BYTES
            )
        self.listening_to = wanted


def token(run: str) -> str:
    """A correlation id as one part of a subject: percent-encoded where it is no plain name."""
    return quote(run, safe="").replace(".", "%2E")


def encode(signal: Signal, known: Mirrored) -> bytes:
    """The body of a message: the signal's fields, and whose it is."""
    return orjson.dumps({"log_id": known.meta.log_id, "epoch_id": known.epoch.epoch_id, **signal.model_dump()})


def decode(body: bytes, known: Mirrored) -> Signal | None:
    """The signal of a message; None if it is of another log, of another copy of this one, or none at all."""
    try:
        said = orjson.loads(body)
        if not isinstance(said, dict):
            return None
        if (said.get("log_id"), said.get("epoch_id")) != (known.meta.log_id, known.epoch.epoch_id):
            return None
        return Signal.model_validate(said)
    except ValueError:  # no JSON, or other fields: anybody may publish there
        return None


def _allowed(connection: Connection, known: Mirrored) -> None:
    """Raise :class:`MirrorUnsuitable` if the server does not let this user do it; it says so some time later."""
    trouble = str(connection.trouble or "")
    if "permissions violation" in trouble.lower():
        advised = f"let this user publish to and subscribe to {known.names.signals}>"
        raise MirrorUnsuitable(url=connection.url, reason=trouble, advised=advised)
