"""Snapshots: a brain's state behind some of its decisions, kept so that a long past is not folded from its beginning.

Nothing but time hangs on them: a state from a snapshot and the events behind it is the state from all events. Rebuilds,
redrives and looks into the past never use one, for they check the fold. This module owns when one is due, its bytes, and
which may be used; how a past is read is ``past.py``'s, what is done with the state the host's.

A snapshot lies behind a decision: there a branch, too, knows what its parent had handled. It is void for other code.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import pickle
import sys
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Generic
from uuid import UUID

import pydantic

from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import SAME_APPEND, decider, fold_topic, run_of_key
from hive_bus.brains.session import Session
from hive_bus.event import event_class, registered_topics
from hive_bus.lineage import lineage
from hive_bus.telemetry import get_logger
from hive_bus.upcasting import upcasters_of
from hive_core_db.records import AlreadyThere, Appended, NewEvent, Verdict
from hive_core_db.store import Snapshot, Store
from hive_errors import StoreError

EVERY: Final = 1000
"""Events that are folded between two snapshots of a key."""
SHARE: Final = 8
"""Of a long past, the eighth part: a key has a few dozen of them, however long it lives."""
_LARGE: Final = 256 * 1024
_END: Final = 2**63 - 1
_VALUES: Final = (date, time, timedelta, tzinfo, Decimal, UUID, Enum, OrderedDict, deque, pydantic.BaseModel)
_BUS: Final = Path(__file__).parent.parent

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Start(Generic[State]):
    """Where to begin: behind ``handled``, in life number ``life`` of a lineage, whose decisions up to ``decided`` are in the state."""

    life: int
    state: State
    handled: int
    decided: int
    folded: int


@dataclass(frozen=True, slots=True)
class _Due(Generic[State]):
    """A state that is to be kept once its decision is in the log."""

    state: State
    handled: int
    folded: int
    decided: asyncio.Future[Verdict] | int


class Snapshots(Generic[State]):
    """The snapshots of one brain: noted while it decides, written when its decisions are in the log."""

    def __init__(self, brain: Brain[State], store: Store) -> None:
        self._brain, self._store = brain, store
        # Now, and not when it is needed: by then the sources may be those of an upgrade that this process does not run.
        self._code = code_of(brain)
        self._due: dict[str, _Due[State]] = {}
        self._proven = False

    def decided(self, session: Session[State], verdict: asyncio.Future[Verdict]) -> None:
        """Note the state behind a decision that is on its way into the log."""
        if self._is_due(session):
            self._due[session.key] = _Due(session.state, session.handled, session.folded, verdict)
            session.kept = session.folded

    def decided_ahead(self, session: Session[State], events: Sequence[NewEvent], handled: int, first: int) -> None:
        """Note the state behind an append whose last input (``handled`` counts up to it) led to its last event."""
        if events[-1].cause_position == SAME_APPEND - (handled - 1) and self._is_due(session):
            position = first + handled - 1
            self._due[session.key] = _Due(session.state, position, session.folded, first + len(events) - 1)
            session.kept = session.folded

    def _is_due(self, session: Session[State]) -> bool:
        return session.folded - session.kept >= max(EVERY, session.folded // SHARE) and bool(self._code)

    async def keep(self) -> None:
        """Write what is due and decided; what cannot be written is left out."""
        for key, due in list(self._due.items()):
            decided = due.decided if isinstance(due.decided, int) else _position(due.decided)
            if decided is None or self._due.pop(key, None) is not due:
                continue
            try:
                if decided:
                    await self._keep(key, due, decided)
            except StoreError as problem:
                self._tell(key, problem)
            except Exception as problem:  # noqa: BLE001 - a state without bytes, for whatever reason: its brain does without
                self._tell(key, problem)
                self._code = ""

    async def _keep(self, key: str, due: _Due[State], decided: int) -> None:
        body = pickle.dumps(due.state, protocol=5)
        body = zlib.compress(body, 1) if len(body) < _LARGE else await asyncio.to_thread(zlib.compress, body, 1)
        store, brain = self._store.snapshots, self._brain.name
        if not self._proven:
            _loaded(body)
            await store.sweep(brain, self._code)
            self._proven = True
        await store.put(Snapshot(brain, key, decided, self._code, due.handled, due.folded, body))

    async def nearest(self, key: str, discarded: Mapping[int, str]) -> Start[State] | None:
        """The last snapshot in the key's lineage that has no event which the lineage has not, or has in other words.

        ``discarded`` are the positions that people discarded, and of which key.
        """
        if not self._code:
            return None
        run = run_of_key(self._brain, key)
        segments, within = await lineage(self._store.log, run), key.removeprefix(run)
        keys = [f"{segment.correlation_id}{within}" for segment in segments]
        left_out = min((position for position, of in discarded.items() if of in keys), default=_END)
        for number in range(len(segments), 0, -1):
            segment = segments[number - 1]
            # Descendants may have edited what it inherits, or its own.
            edited = await self._store.log.several(list(segment.edits)) if segment.edits else []
            last = _END if segment.upto is None else segment.upto
            upto = min([last, left_out - 1, *(row.position - 1 for row in edited)])
            found = await self._store.snapshots.nearest(self._brain.name, keys[number - 1], self._code, upto=upto)
            if found is not None:
                return self._start(number, found)
        return None

    def _start(self, life: int, found: Snapshot) -> Start[State] | None:
        try:
            return Start(life, _loaded(found.body), found.handled, found.decided, found.folded)
        except Exception as problem:  # noqa: BLE001 - whatever is wrong with it, the log has everything
            self._tell(found.key, problem)
            return None

    def _tell(self, key: str, problem: Exception) -> None:
        error = f"{type(problem).__name__}: {problem}"[:2000]
        _log.warning("brain.snapshot_left_out", brain=self._brain.name, key=key, error=error)


def code_of(brain: Brain[Any]) -> str:
    """The digest of everything that its fold may depend on; empty for a brain that its source does not tell everything of.

    It is coarse: the bus, and the packages of the brain, of the modules that it names, of the events that it folds and of
    their upcasters. A brain that was given something, or was made by a program, is more than its source.
    """
    kind = type(brain)
    if vars(brain) or getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        return ""
    topics = [topic for topic in registered_topics() if fold_topic(brain, topic)]
    modules = {base.__module__ for base in kind.__mro__} | {*brain.modules}
    modules |= {cls.__module__ for topic in topics if (cls := event_class(topic)) is not None}
    modules |= {step.__module__ for step in upcasters_of(topics)}
    modules = {name for name in modules if name.partition(".")[0] not in {"hive_bus", *sys.stdlib_module_names}}
    places = {_place(name) for name in modules}
    if None in places:
        return ""
    told = [decider(brain), str(sys.implementation.cache_tag), pydantic.VERSION, _digest(_BUS)]
    told += sorted(_digest(place) for place in places if place is not None)
    return sha256("\n".join(told).encode()).hexdigest()[:16]


def _place(module: str) -> Path | None:
    """The directory of a module's package, the file of a module in none; None where it has no source."""
    found = importlib.import_module(module)
    if not found.__file__:
        return None
    return Path(found.__file__).parent if found.__package__ else Path(found.__file__)


@cache
def _digest(place: Path) -> str:
    """Of what the sources said when this process first asked, wherever they lie: that is the code that it runs."""
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    parts = (part for file in files for part in (bytes(file.relative_to(place.parent)), file.read_bytes()))
    return sha256(b"\0".join(parts)).hexdigest()


def _position(verdict: asyncio.Future[Verdict]) -> int | None:
    """Where the decision ends in the log; None: nobody knows yet, 0: it is not there."""
    if not verdict.done():
        return None
    if verdict.cancelled() or verdict.exception() is not None:
        return 0
    outcome = verdict.result()
    return outcome.last if isinstance(outcome, Appended | AlreadyThere) else 0


class _Values(pickle.Unpickler):
    """Makes what holds values and does nothing, of modules that are loaded, whatever a body asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """A class of values. Raises :class:`pickle.UnpicklingError`."""
        found = super().find_class(module, name) if module in sys.modules else None
        if isinstance(found, type) and (issubclass(found, _VALUES) or is_dataclass(found) or hasattr(found, "_fields")):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is no class of values")


def _loaded(body: bytes) -> Any:
    return _Values(io.BytesIO(zlib.decompress(body))).load()
