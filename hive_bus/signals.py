"""Ephemeral signals: what is said while an effect is performed, as a model's text or how far a command is. Never in the log.

Owns who hears what inside a process, within bounds: nobody who works ever waits for who listens. A ``Voice`` puts together what an
attempt says, a carrier (``hive_bus.mirror.signals``) takes signals to other processes. It must not know what an effect is about. The truth is the log:
whatever was heard of an effect, or missed, its result replaces it (``hive_bus.underway``).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from hive_bus.telemetry import get_logger

LONGEST: Final = 4096
"""Characters of a signal's text (bytes of a command's output); of more the last ones are sent."""
QUEUE: Final = 1024
"""Signals that wait for a listener; the oldest give way."""
EVERYBODY: Final = "*"
_SAY_AGAIN: Final = 10.0

_log = get_logger(__name__)

_Name = Annotated[str, Field(max_length=1024)]
_Count = Annotated[int, Field(ge=0)]


class Signal(BaseModel):
    """Something said about an effect that is not done.

    ``run``, ``stream``, ``intent_id`` and ``topic`` are the correlation id, stream, event id and topic of the intent, ``task``
    the task that it names; ``attempt`` counts its claims from 1. ``ordinal`` counts what this attempt said, from 1:
    a hole is something lost. ``kind`` says what ``text`` is:

    - ``text``: a piece of a model's or a tool's words; right before it ``left_out`` characters were too many to be sent.
    - ``output``: a piece of what a command prints, as it came, with its control characters; ``left_out`` counts bytes.
    - ``progress``: how far it is, in place of what was said before; ``fraction`` is from 0 to 1, None where nobody knows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: _Name
    stream: _Name
    intent_id: _Name
    topic: _Name
    task: _Name = ""
    attempt: _Count
    kind: Literal["text", "output", "progress"]
    ordinal: _Count
    left_out: _Count = 0
    text: Annotated[str, Field(max_length=LONGEST)] = ""
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None


class Carrier(Protocol):
    """Takes signals to other processes and brings theirs.

    Guarantees:
        Both methods return at once and never fail. What cannot be taken is dropped.
    """

    def put(self, signal: Signal) -> None:
        """Take one along."""
        ...

    def listening(self) -> None:
        """Who listens here has changed: see ``Signals.wanted_runs``."""
        ...


class Listener:
    """Hears signals of one run, or of all: an async iterator that ends when the bus closes.

    ``dropped`` counts those that it was too slow for.
    """

    def __init__(self, run: str, *, lost: Callable[[], None]) -> None:
        self.run = run
        self.dropped = 0
        self._lost = lost
        self._waiting: deque[Signal] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, signal: Signal) -> None:
        """Let it hear one; the oldest that waits gives way where too many do."""
        if len(self._waiting) == QUEUE:
            self._waiting.popleft()
            self.dropped += 1
            self._lost()
        self._waiting.append(signal)
        self._wake.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Signal:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


class Signals:
    """The signals of a process; ``bus.signals``.

    Guarantees:
        ``send`` returns at once and fails nobody. Who listens hears signals of one attempt in order, some of them
        perhaps not: those said before it came, and those that it, or the way to it, was too slow for.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.dropped = 0
        self._listeners: set[Listener] = set()
        self._carrier: Carrier | None = None
        self._told = -math.inf

    @property
    def wanted(self) -> bool:
        """Whether anybody may listen: else nothing needs to be put together."""
        return bool(self._listeners) or self._carrier is not None

    @property
    def wanted_runs(self) -> frozenset[str]:
        """The runs that are listened to here; ``*`` alone for all."""
        runs = frozenset(listener.run for listener in self._listeners)
        return frozenset((EVERYBODY,)) if EVERYBODY in runs else runs

    def send(self, signal: Signal) -> None:
        """Say something, here and wherever the carrier goes."""
        self.sent += 1
        self.deliver(signal)
        if self._carrier is not None:
            self._carrier.put(signal)

    def deliver(self, signal: Signal) -> None:
        """Let those hear it who listen in this process."""
        for listener in self._listeners:
            if listener.run in {EVERYBODY, signal.run}:
                listener.put(signal)

    @contextmanager
    def listen(self, run: str = EVERYBODY) -> Iterator[Listener]:
        """Hear what is said from now on: ``with bus.signals.listen(run) as heard: async for signal in heard: ...``."""
        listener = Listener(run, lost=self.lose)
        self._listeners.add(listener)
        self._changed()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._changed()

    @contextmanager
    def carried(self, carrier: Carrier) -> Iterator[None]:
        """Let a carrier take them to other processes for as long as this lasts."""
        self._carrier = carrier
        try:
            yield
        finally:
            self._carrier = None

    def lose(self) -> None:
        """Count one that nobody will hear, and say so now and then."""
        self.dropped += 1
        now = time.monotonic()
        if now - self._told >= _SAY_AGAIN:
            self._told = now
            _log.warning("signals.dropped", dropped=self.dropped, sent=self.sent)

    def close(self) -> None:
        """End every listener."""
        for listener in self._listeners:
            listener.close()

    def _changed(self) -> None:
        if self._carrier is not None:
            self._carrier.listening()
