"""The voice of one attempt of an effect: what its hand says, put together into few signals.

Owns the rate and the size of what is sent, and characters cut in two. It must not know who listens.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from typing import AnyStr, Final, Generic, Literal

from hive_bus.record import Record
from hive_bus.signals import LONGEST, Signal, Signals

EVERY: Final = 0.05
"""Seconds: what is said in this time is one signal of each kind."""


class Voice:
    """What one attempt of an effect says, put together to at most one signal of each kind in ``EVERY`` seconds.

    Any thread may call it, but for ``close``: with it the attempt is over, and what its threads still say is not heard.
    """

    def __init__(self, signals: Signals, intent: Record, *, task: str, attempt: int) -> None:
        self._signals, self._intent, self._task, self._attempt = signals, intent, task, attempt
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._words: _Passage[str] = _Passage("")
        self._printed: _Passage[bytes] = _Passage(b"")
        self._state: tuple[str, float | None] | None = None
        self._ordinal = 0
        self._planned = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def say(self, piece: str | bytes) -> None:
        """Another piece of text, or of a command's output."""
        with self._lock:
            if isinstance(piece, str):
                self._words.add(piece, keep=self._heard)
            else:
                self._printed.add(piece, keep=self._heard)
            self._plan()

    def progress(self, text: str, fraction: float | None) -> None:
        """How far it is now."""
        if fraction is not None:
            fraction = None if math.isnan(fraction) else min(max(float(fraction), 0.0), 1.0)
        with self._lock:
            self._state = (text[:LONGEST], fraction)
            self._plan()

    def close(self) -> None:
        """Send what is left, and nothing more."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            found = list(self._collected(whole=True)) if self._heard else []
            self._closed = True
        for signal in found:
            self._signals.send(signal)

    @property
    def _heard(self) -> bool:
        return self._signals.wanted and not self._closed

    def _plan(self) -> None:
        """See to it that it is sent in a while; the lock is held."""
        if self._planned or not self._heard:
            return
        self._planned = True
        if threading.get_ident() == self._thread:
            self._set_timer()
            return
        try:
            self._loop.call_soon_threadsafe(self._set_timer)
        except RuntimeError:
            self._closed = True  # the loop is closed: a thread that nothing could end goes on talking

    def _set_timer(self) -> None:
        if not self._closed:
            self._timer = self._loop.call_later(EVERY, self._send)

    def _send(self) -> None:
        with self._lock:
            self._planned = False
            found = [] if self._closed else list(self._collected())
        for signal in found:
            self._signals.send(signal)

    def _collected(self, *, whole: bool = False) -> Iterator[Signal]:
        if words := self._words.take(len(self._words.kept)):
            yield self._signal("text", sound(words), left_out=self._words.left_out())
        rest = 0 if whole else unfinished(self._printed.kept)
        if printed := self._printed.take(len(self._printed.kept) - rest):
            yield self._signal("output", printed.decode("utf-8", "replace"), left_out=self._printed.left_out())
        if self._state is not None:
            (text, fraction), self._state = self._state, None
            yield self._signal("progress", sound(text), fraction=fraction)

    def _signal(
        self,
        kind: Literal["text", "output", "progress"],
        text: str,
        *,
        left_out: int = 0,
        fraction: float | None = None,
    ) -> Signal:
        self._ordinal += 1
        intent = self._intent
        # Nothing here comes from outside: there is nothing to check.
        return Signal.model_construct(
            run=intent.correlation_id,
            stream=intent.stream,
            intent_id=intent.event_id,
            topic=intent.topic,
            task=self._task,
            attempt=self._attempt,
            kind=kind,
            ordinal=self._ordinal,
            left_out=left_out,
            text=text,
            fraction=fraction,
        )


class _Passage(Generic[AnyStr]):
    """What was said since the last signal: its end, and how much before that is left out."""

    __slots__ = ("_left_out", "kept")

    def __init__(self, empty: AnyStr) -> None:
        self.kept: AnyStr = empty
        self._left_out = 0

    def add(self, piece: AnyStr, *, keep: bool) -> None:
        before = len(self.kept) + len(piece)
        self.kept = (self.kept + piece[-LONGEST:])[-LONGEST:] if keep else piece[:0]
        self._left_out += before - len(self.kept)

    def take(self, length: int) -> AnyStr:
        taken: AnyStr = self.kept[:length]
        self.kept = self.kept[length:]
        return taken

    def left_out(self) -> int:
        """How much is left out before what was taken, since the last time it was asked."""
        left_out, self._left_out = self._left_out, 0
        return left_out


def sound(text: str) -> str:
    """Text that can travel: a lone half of a character becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def unfinished(data: bytes) -> int:
    """How many bytes at the end are a UTF-8 character whose rest is still to come."""
    for back in range(1, min(4, len(data) + 1)):
        lead = data[-back]
        if lead & 0b1100_0000 == 0b1000_0000:
            continue
        length = 4 if lead >= 0b1111_0000 else 3 if lead >= 0b1110_0000 else 2 if lead >= 0b1100_0000 else 1
        return back if length > back else 0
    return 0
