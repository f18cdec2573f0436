"""For tests of brains, ours and yours: a purity guard, a loop with virtual time, and states as comparable bytes.

Nothing of it is loaded by the bus itself. ``guarded`` wraps a brain so that clock, randomness,
files and sockets raise in it; ``run_simulated`` runs a program on one seeded loop whose time
jumps to the next timer; ``refold`` rebuilds a brain's state from the log, as bytes.
"""

from __future__ import annotations

import _random
import asyncio
import copy
import dataclasses
import datetime
import functools
import gc
import json
import random
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from enum import Enum
from types import FrameType
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import Folder
from hive_bus.brains.past import load
from hive_bus.bus import Bus
from hive_errors import ImpureBrain

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_IMPURE_MODULES: Final = frozenset({"time", "posix", "nt", "_socket", "_ssl", "select", "_posixsubprocess"})
_PURE: Final = frozenset({"posix.fspath", "nt.fspath", "posix._path_normpath", "nt._path_normpath"})
_IMPURE_FUNCTIONS: Final = frozenset(
    {"_thread.start_new_thread", "_thread.start_joinable_thread", "uuid.uuid1", "uuid.uuid4", "uuid.getnode"}
)
_IMPURE_BUILTINS: Final = frozenset({"open", "input"})
_READS_THE_CLOCK: Final = frozenset({"now", "utcnow", "today"})


# Purity.


@contextmanager
def pure(brain: str = "?") -> Iterator[None]:
    """Raise :class:`ImpureBrain` for every call, within the context and this thread, of a clock, randomness, files or sockets.

    It watches calls of C functions, where nearly all of these end (``secrets`` in ``os.urandom``); imports are let pass.
    A debugger's or profiler's own hook rests meanwhile.
    """
    before = sys.getprofile()

    def look(frame: FrameType, event: str, function: Any) -> None:
        name = ""
        if event == "c_call":
            name = _impure(function)
        elif event == "call":
            name = _impure_python(frame)
        if name and not _importing(frame):
            raise ImpureBrain(brain=brain, function=name)

    # The collector's callbacks are somebody else's code: they wait until the brain is done.
    collects = gc.isenabled()
    gc.disable()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def guarded(brain: Brain[State]) -> Brain[State]:
    """The same brain, with ``initial``, ``evolve`` and ``decide`` under the guard: host it in a test in its place."""
    kind = type(brain)
    methods = {name: _under_guard(getattr(kind, name), brain.name) for name in ("initial", "evolve", "decide")}
    twin = copy.copy(brain)
    twin.__class__ = type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__doc__": kind.__doc__})
    return twin


def _under_guard(method: Callable[..., T], brain: str) -> Callable[..., T]:
    @functools.wraps(method)
    def call(*args: Any) -> T:
        with pure(brain):
            return method(*args)

    return call


def _impure(function: Any) -> str:
    """The name of a C function that no brain may call, else an empty string."""
    name = getattr(function, "__name__", "")
    owner = getattr(function, "__self__", None)
    if isinstance(owner, _random.Random):
        return f"random.{name}"
    if isinstance(owner, type):
        reads_clock = name in _READS_THE_CLOCK and issubclass(owner, datetime.date)
        return f"{owner.__name__}.{name}" if reads_clock else ""
    module = getattr(function, "__module__", None) or getattr(owner, "__name__", "")
    if module in {"io", "_io", "builtins"} and name in _IMPURE_BUILTINS:
        return name
    full = f"{module}.{name}"
    if type(owner).__module__ in {"_socket", "socket"}:
        return f"socket.{name}"
    return full if full in _IMPURE_FUNCTIONS or (module in _IMPURE_MODULES and full not in _PURE) else ""


def _impure_python(frame: FrameType) -> str:
    """The same for a Python function that ends in a C type, whose making is no call that anybody sees."""
    module = frame.f_globals.get("__name__", "")
    full = f"{module}.{frame.f_code.co_name}"
    return full if module == "socket" or full in _IMPURE_FUNCTIONS else ""


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


# Virtual time.


class Deadlock(RuntimeError):
    """Everybody waits, and no timer is set: nothing can ever happen again."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop without threads, sockets or waiting: when nobody can run, its time jumps to the next timer.

    ``random`` is the one source of chance of a simulation: the same seed gives the same run. ``now`` is
    the loop's time as UTC microseconds, for a store's clock. Timers are late by a seeded jitter of up to
    ``jitter`` seconds, so that what is due together does not always come in the same order.
    """

    def __init__(self, seed: int | str = 0, *, epoch: int = 1_700_000_000_000_000, jitter: float = 0.001) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self._epoch = epoch
        self._jitter = jitter
        self._elapsed = 0.0
        self._selector = _Selector(self)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._elapsed

    def now(self) -> int:
        """Virtual time, UTC microseconds."""
        return self._epoch + round(self._elapsed * 1_000_000)

    def advance(self, seconds: float) -> None:
        """Let time pass at once: a process that was stopped, a machine that slept."""
        self._elapsed += seconds

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As of any loop, but late by the jitter."""
        return super().call_at(when + self.random.random() * self._jitter, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Arguments]], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """Refused: a thread is not simulated."""
        raise RuntimeError("a simulated loop has no threads: open the store with inline=True")

    def _process_events(self, event_list: Sequence[object]) -> None:
        """There are none: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nothing to wake up: the loop never waits."""


class _Selector:
    """Stands where the loop waits for the world: there is no world, so time passes instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise Deadlock("everybody waits, and no timer is set")
        if timeout > 0:
            self._loop.advance(timeout)
        return []

    def close(self) -> None:
        """Nothing is open."""


def run_simulated(seed: int | str, main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(loop)`` on a simulated loop and return what it returns; the same seed gives the same run.

    Raises :class:`Deadlock`, and whatever ``main`` raises.
    """
    loop = SimulatedLoop(seed)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


# States as bytes.


async def refold(bus: Bus, brain: Brain[Any], key: str, *, upto: int | None = None) -> bytes:
    """The state of ``key`` as a rebuild from the log makes it, every input up to ``upto`` (None: the head) handled."""
    head = await bus.head() if upto is None else upto
    session = await load(Folder(brain), bus.store.log, key, upto=head)
    return canonical_state(session.state)


def canonical_state(state: object) -> bytes:
    """A state as canonical JSON: dataclasses, slotted records and models by their fields, mappings and sets sorted.

    Two states are the same if and only if their bytes are. Raises :class:`TypeError` for what has no such form.
    """
    return _text(_plain(state)).encode()


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    fields = _fields(value)
    if fields is not None:
        return {"$": type(value).__name__, **{name: _plain(getattr(value, name)) for name in fields}}
    if isinstance(value, Mapping):
        return {"$map": sorted(([_plain(key), _plain(item)] for key, item in value.items()), key=_text)}
    if isinstance(value, set | frozenset):
        return {"$set": sorted((_plain(item) for item in value), key=_text)}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


def _fields(value: object) -> Sequence[str] | None:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    for attribute in ("model_fields", "__struct_fields__", "_fields"):
        names = getattr(type(value), attribute, None)
        if names is not None:
            return list(names)
    return None


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
