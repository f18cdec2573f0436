"""How a recorded run plays again: at which pace, in which lines, and drawn until a key ends it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dashboard.cli.drawing import Growing, Shape, draw
from dashboard.cli.events import as_dict
from dashboard.cli.events import line_of as event_line
from dashboard.cli.shell import Shell
from dashboard.cli.telling import line_of
from dashboard.cli.text import duration

if TYPE_CHECKING:
    from hive_bus import Record

LONGEST: Final = 2.0
"""Seconds that nothing is shown at most; of a longer wait a note says how long it was."""


class Pace:
    """When recorded events are shown: as far apart as they were, ``speed`` times as fast (None: at once)."""

    def __init__(self, speed: float | None) -> None:
        self.speed = speed
        self._shown: Record | None = None
        self._next: Record | None = None
        self._began = 0.0
        # The drawing asks for the time from a thread of its own.
        self._time: Callable[[], float] = lambda: 0.0

    def wait(self, record: Record) -> tuple[float, bool]:
        """Seconds until ``record`` is shown, and whether it would be more."""
        if self.speed is None or self._shown is None:
            return 0.0, False
        seconds = (record.recorded_at - self._shown.recorded_at) / 1_000_000 / self.speed
        return min(seconds, LONGEST), seconds > LONGEST

    async def play(self, records: Sequence[Record]) -> AsyncIterator[tuple[Record, float]]:
        """Each record when its time has come; with the seconds that were left out before it, 0 for none."""
        self._time = asyncio.get_running_loop().time
        for record in records:
            seconds, capped = self.wait(record)
            passed = (record.recorded_at - self._shown.recorded_at) / 1_000_000 if self._shown is not None else 0.0
            self._began, self._next = self._time(), record
            if seconds > 0:
                await asyncio.sleep(seconds)
            self._shown, self._next = record, None
            yield record, passed if capped else 0.0

    def now(self) -> int:
        """What the clock showed then, UTC microseconds: between two events it goes on."""
        if self._shown is None:
            return 0
        passed, following = 0.0, self._next
        if following is not None and self.speed is not None:
            passed = (self._time() - self._began) * self.speed * 1_000_000
            passed = min(passed, following.recorded_at - self._shown.recorded_at)
        return self._shown.recorded_at + round(passed)


async def told(shell: Shell, pace: Pace, records: Sequence[Record]) -> None:
    """Lines, or JSON Lines, each when it happened."""
    from dashboard.views import RunFold, is_run

    fold, known = RunFold(), is_run(records)
    async for record, passed in pace.play(records):
        fold.add(record)
        view = fold.view
        assert view is not None
        if shell.json:
            shell.emit(as_dict(record))
            continue
        if passed:
            shell.print([(f"           {duration(passed)} pass", "dim")])
        line = line_of(record, view, width=shell.width) if known else event_line(record, shell.width)
        if line is not None:
            shell.print(line)


async def drawn(shell: Shell, pace: Pace, records: Sequence[Record]) -> None:
    """The trace grows on the terminal, and stays as it was in the end, or when a key ended it."""
    seen: list[Record] = []
    try:
        with _a_key() as pressed, Growing(shell, Shape.TREE, now=pace.now) as picture:
            seen = picture.records
            async with asyncio.TaskGroup() as tasks:
                playing = tasks.create_task(_grow(picture, pace, records))
                waiting = tasks.create_task(pressed.wait())
                await asyncio.wait([playing, waiting], return_when=asyncio.FIRST_COMPLETED)
                playing.cancel()
                waiting.cancel()
    finally:
        if seen:
            draw(shell, seen, Shape.TREE, now=seen[-1].recorded_at)
    if len(seen) < len(records):
        shell.say(f"ended at position {seen[-1].position if seen else 0}, event {len(seen)} of {len(records)}")


async def _grow(picture: Growing, pace: Pace, records: Sequence[Record]) -> None:
    async for record, _ in pace.play(records):
        picture.add(record)


@contextmanager
def _a_key() -> Iterator[asyncio.Event]:
    """An event that is set when somebody presses a key; the terminal is as it was afterwards."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    import termios
    import tty

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def read() -> None:
        os.read(descriptor, 1024)
        pressed.set()

    loop.add_reader(descriptor, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
