"""A watchdog that sees a blocked event loop; knows nothing of the hive.

A sampling thread looks at every callback that is running on any event loop of the process. Two things are reported:

* *waits*: the loop's thread has been asleep at the same instruction of the same callback for ``WAIT_LIMIT`` seconds: a ``time.sleep``,
  a lock, a child process. Waiting for the disk does not count: how long that takes is the machine's affair.
* *computes*: one callback has used ``COMPUTE_LIMIT`` seconds of processor time.

Neither counts wall time alone, so a machine that is busy or stalled accuses nobody: a thread that could run but gets no processor is not
asleep and uses no processor time, and while the whole machine stands still the sampler takes no samples. A wait for the interpreter's own
lock is many short sleeps, any other wait for a lock is one. All of this comes from ``/proc``: outside Linux the watchdog is blind. A helper in ``tests/support`` that waits for a program (psql, a server that starts) is excused, and so
is an import: it happens once in a process, and takes what a cold disk and a compiler take.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from asyncio import events
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import CodeType, FrameType

# Far above what a call may take that is answered at once, a query or an append: on a busy machine that is a second at times.
WAIT_LIMIT = 1.0
# Coverage makes Python code about three times slower, and the slowest machines do a third of what the fast ones do.
COMPUTE_LIMIT = 4.0
TICK = 0.02
ROOT = f"{Path(__file__).parents[1]}/"
HELPERS = f"{ROOT}tests/support/"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Sighting:
    """What the sampler knows of the callback that a thread is running."""

    handle: events.Handle
    processor_at_start: float
    place: tuple[CodeType, int, int] | None = None
    asleep_since: float = 0.0
    seen_asleep: int = 0
    reported: bool = False


class LoopWatchdog:
    """Watches every event loop of this process while the context is open; `findings` says what it saw.

    It wraps ``asyncio.Handle._run``, through which every callback of a pure Python loop goes (uvloop's do not). Watchdogs nest.
    """

    def __init__(self, *, wait_limit: float = WAIT_LIMIT, compute_limit: float = COMPUTE_LIMIT) -> None:
        self.findings: list[str] = []
        self._wait_limit, self._compute_limit = wait_limit, compute_limit
        # A sampler that was itself held up has not seen the thread sleep through the gap: so many sightings, apart from the time between.
        self._enough_sightings = int(wait_limit / TICK / 2)
        self._running: dict[int, tuple[int, events.Handle]] = {}
        self._sightings: dict[int, _Sighting] = {}
        self._closing = threading.Event()
        self._sampler = threading.Thread(target=self._sample_until_closed, name="loop-watchdog", daemon=True)
        self._original: Any = None

    def __enter__(self) -> Self:
        self._original = original = events.Handle._run
        running, ident, native = self._running, threading.get_ident, threading.get_native_id

        def watched(handle: events.Handle) -> None:
            thread = ident()
            running[thread] = (native(), handle)
            try:
                original(handle)
            finally:
                running.pop(thread, None)

        events.Handle._run = watched  # type: ignore[method-assign, assignment]  # there is no public hook around a callback
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        events.Handle._run = self._original  # type: ignore[method-assign]
        self._closing.set()
        self._sampler.join()

    def drain(self) -> list[str]:
        """Return the findings so far and forget them."""
        found, self.findings = self.findings, []
        return found

    def _sample_until_closed(self) -> None:
        while not self._closing.wait(TICK):
            running = dict(self._running)
            for thread in self._sightings.keys() - running.keys():
                del self._sightings[thread]
            for thread, (native, handle) in running.items():
                self._look_at(thread, native, handle)

    def _look_at(self, thread: int, native: int, handle: events.Handle) -> None:
        state = _state_of(native)
        if state is None:
            return
        asleep, processor = state
        seen = self._sightings.get(thread)
        if seen is None or seen.handle is not handle:
            self._sightings[thread] = _Sighting(handle, processor)
            return
        if seen.reported:
            return
        if _is_importing(sys._current_frames().get(thread)):
            seen.processor_at_start, seen.place = processor, None
            return
        if processor - seen.processor_at_start > self._compute_limit:
            self._report(seen, thread, f"computed for {processor - seen.processor_at_start:.2f} s")
            return
        self._look_for_sleep(seen, thread, _sleeps_of(native) if asleep else None)

    def _look_for_sleep(self, seen: _Sighting, thread: int, sleeps: int | None) -> None:
        frame = sys._current_frames().get(thread)
        now = time.monotonic()
        if frame is None or sleeps is None:
            seen.place = None
            return
        place = (frame.f_code, frame.f_lasti, sleeps)
        if place != seen.place:
            seen.place, seen.asleep_since, seen.seen_asleep = place, now, 0
            return
        seen.seen_asleep += 1
        if self._is_long(seen, now) and not _is_helper(frame):
            self._report(seen, thread, f"waited for {now - seen.asleep_since:.2f} s and longer")

    def _is_long(self, seen: _Sighting, now: float) -> bool:
        return seen.seen_asleep >= self._enough_sightings and now - seen.asleep_since >= self._wait_limit

    def _report(self, seen: _Sighting, thread: int, what: str) -> None:
        seen.reported = True
        frame = sys._current_frames().get(thread)
        stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
        self.findings.append(f"a callback of the event loop {what}; it was here:\n{stack}")


def _is_helper(frame: FrameType | None) -> bool:
    """Whether the innermost code that is neither Python's own nor a package's belongs to a helper of tests."""
    while frame is not None and not _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(HELPERS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _is_ours(file: str) -> bool:
    return file.startswith(ROOT) and "site-packages" not in file


def _state_of(native: int) -> tuple[bool, float] | None:
    """Whether the kernel has the thread asleep (not: waiting for the disk), and the processor time it has used, in seconds."""
    try:
        stat = Path(f"/proc/self/task/{native}/stat").read_bytes()
    except OSError:  # not Linux, or the thread has just ended
        return None
    # The name in parentheses may hold anything; proc(5) counts the state behind the last one as field 3.
    state, *numbers = stat[stat.rindex(b")") + 2 :].split()
    user, system = int(numbers[10]), int(numbers[11])
    return state == b"S", (user + system) / _TICKS_PER_SECOND


def _sleeps_of(native: int) -> int | None:
    """How often a thread that waits for a lock has gone to sleep so far, 0 for one that waits for anything else.

    A thread wakes every few milliseconds to ask for the interpreter's lock: where others compute, it may do so for long.
    """
    task = Path(f"/proc/self/task/{native}")
    try:
        waits_in, status = (task / "wchan").read_text(), (task / "status").read_text()
    except OSError:  # as above
        return None
    # Where the kernel does not say what a thread waits for, it may be a lock.
    if waits_in not in {"", "0"} and not waits_in.startswith("futex"):
        return 0
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
