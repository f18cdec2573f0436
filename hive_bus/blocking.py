"""The blocking front of the bus, for programs without an event loop, and for any of their threads.

A loop in a thread of its own holds the async bus. ``get_event_bus()`` gives the one of
this process; it opens the database at its first use, commits what waits when the
program ends, and begins anew in a forked child.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeVar

from hive_bus.bus import Bus
from hive_bus.event import Draft, Event
from hive_bus.history import Trace
from hive_bus.opening import open_bus
from hive_bus.record import Record
from hive_errors import BlockingCall, BusClosed

T = TypeVar("T")


class _Running(NamedTuple):
    """The loop's side, once the bus is open."""

    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    bus: Bus
    calls: asyncio.TaskGroup


class EventBus:
    """The bus for synchronous programs: every method may be called from any thread, none blocks a running loop.

    ``url`` and ``source`` are those of ``open_bus``. Opened at the first use; its errors are raised there.

    Guarantees:
        When ``publish`` returns, the event is durable. Calls of one thread are appended in their order.
        In a forked child it opens the database anew and shares nothing with its parent.
    """

    def __init__(self, url: str | None = None, *, source: str | None = None) -> None:
        self._url, self._source = url, source
        self._reset()
        _all.append(self)

    def publish(self, event: Event | Draft, **options: Any) -> int:
        """Append one event and return its position once it is durable; options as ``Bus.publish``.

        Raises :class:`BlockingCall` on a running event loop: ``await publish_async(...)`` there.
        """
        return self._wait("publish", lambda bus: bus.publish(event, **options))

    async def publish_async(self, event: Event | Draft, **options: Any) -> int:
        """As ``publish``, from any event loop."""
        return await self._await(lambda bus: bus.publish(event, **options))

    def get_event_history(self, correlation_id: str) -> list[Record]:
        """Every record of a correlation id (any name that ``Bus.history`` knows), in log order. Raises :class:`NotFound`."""
        return self._wait("get_event_history", lambda bus: bus.history(correlation_id))

    async def get_event_history_async(self, correlation_id: str) -> list[Record]:
        """As ``get_event_history``, from any event loop."""
        return await self._await(lambda bus: bus.history(correlation_id))

    def get_trace(self, correlation_id: str) -> Trace:
        """What caused what, as a tree. Raises :class:`NotFound`."""
        return self._wait("get_trace", lambda bus: bus.trace(correlation_id))

    async def get_trace_async(self, correlation_id: str) -> Trace:
        """As ``get_trace``, from any event loop."""
        return await self._await(lambda bus: bus.trace(correlation_id))

    @property
    def closed(self) -> bool:
        """Whether it was closed, or could not be opened."""
        return self._closed

    def close(self) -> None:
        """Finish the calls under way, commit what waits, end the thread. Closing twice is fine."""
        _refuse_on_a_loop("close", "close_async()")
        self._stop()
        if self._thread is not None:
            self._thread.join()
        _forget(self)

    async def close_async(self) -> None:
        """As ``close``, from any event loop."""
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        _forget(self)

    def _reset(self) -> None:
        """Begin with nothing: a new object's state, and that of a forked child, which has no thread of its parent."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: Future[_Running] = Future()
        self._closed = False

    def _wait(self, method: str, call: Callable[[Bus], Awaitable[T]]) -> T:
        _refuse_on_a_loop(method, f"{method}_async(...)")
        return self._submit(self._begin().result(), call).result()

    async def _await(self, call: Callable[[Bus], Awaitable[T]]) -> T:
        begun = self._begin()
        if not begun.done():
            # Shielded: whoever is cancelled while the file opens must not cancel it for the others.
            await asyncio.shield(asyncio.wrap_future(begun))
        return await asyncio.wrap_future(self._submit(begun.result(), call))

    def _begin(self) -> Future[_Running]:
        with self._lock:
            if self._closed and not self._failed():
                raise BusClosed(what="event bus", reason="it was closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hive-event-bus", daemon=True)
                self._thread.start()
            return self._running

    def _failed(self) -> bool:
        return self._running.done() and self._running.exception() is not None

    def _submit(self, running: _Running, call: Callable[[Bus], Awaitable[T]]) -> Future[T]:
        result: Future[T] = Future()
        # The lock orders this call before the stop: the loop starts it before it leaves.
        with self._lock:
            if self._closed:
                raise BusClosed(what="event bus", reason="it was closed")
            running.loop.call_soon_threadsafe(
                lambda: running.calls.create_task(_perform(running.bus, call, result), name="hive-event-bus call")
            )
        return result

    def _stop(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # A bus that is still being opened stops as soon as it is.
        self._running.add_done_callback(_stop_loop)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:  # noqa: BLE001 - whoever waits for the opening must hear of it
            self._closed = True
            if not self._running.done():
                self._running.set_exception(problem)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        # The group ends before the bus closes: calls under way are answered.
        async with open_bus(self._url, source=self._source) as bus, asyncio.TaskGroup() as calls:
            self._running.set_result(_Running(asyncio.get_running_loop(), stop, bus, calls))
            await stop.wait()


def get_event_bus() -> EventBus:
    """The event bus of this process, on the default database (``HIVE_DB``, ``hive.yaml``, ``./.hive/hive.db``).

    The same object for every thread; a new one once the last was closed.
    """
    with _door.lock:
        if _door.bus is None or _door.bus.closed:
            _door.bus = EventBus()
        return _door.bus


def _stop_loop(begun: Future[_Running]) -> None:
    if begun.exception() is None:
        running = begun.result()
        running.loop.call_soon_threadsafe(running.stop.set)


async def _perform(bus: Bus, call: Callable[[Bus], Awaitable[T]], result: Future[T]) -> None:
    """Answer a call; its error is the caller's, never the loop's."""
    if not result.set_running_or_notify_cancel():
        return
    try:
        value = await call(bus)
    except asyncio.CancelledError:
        result.set_exception(BusClosed(what="event bus", reason="it was stopped during the call"))
        raise
    except Exception as problem:  # noqa: BLE001 - whatever it is, the caller's thread raises it
        result.set_exception(problem)
    else:
        result.set_result(value)


def _refuse_on_a_loop(method: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BlockingCall(method=f"EventBus.{method}", instead=instead)


class _Door:
    """The one event bus of the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bus: EventBus | None = None


_door: Final = _Door()
_all: Final[list[EventBus]] = []
# What a child inherits from its parent must never be touched again, not even by the garbage collector.
_abandoned: Final[list[object]] = []


def _forget(bus: EventBus) -> None:
    if bus in _all:
        _all.remove(bus)


@atexit.register
def _close_all() -> None:
    for bus in tuple(_all):
        bus.close()


def _after_fork() -> None:
    _door.lock = threading.Lock()
    for bus in _all:
        _abandoned.append((bus._lock, bus._thread, bus._running))
        bus._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
