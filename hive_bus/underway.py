"""What is being done right now: a fold of signals and of the log, for whoever shows it.

Pure, and bounded. It decides what a signal is still worth: one of an attempt that is over, or of an effect that has ended, is
worth nothing, in whatever order signals and records come. Records are the truth, and take away what was heard.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from hive_bus.record import Record
from hive_bus.signals import Signal

MOST: Final = 1024
"""Effects that are remembered as under way; the one that was heard of first gives way."""
KEPT: Final = 4096
"""Characters of what an effect said last."""
_REMEMBERED: Final = 8192

_BEGINS: Final = frozenset({"started", "assigned"})
_GOES_ON: Final = frozenset({"attempt_failed", "superseded"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """An effect that is under way, as far as it was heard of; ids as in :class:`Signal`.

    ``text`` is what it said last, in one piece; ``whole`` says that nothing was missed before it. ``progress`` and ``fraction`` are how
    far it said it was. ``ordinal`` is that of the last signal.
    """

    run: str
    stream: str
    intent_id: str
    topic: str
    task: str
    attempt: int
    ordinal: int = 0
    text: str = ""
    whole: bool = True
    progress: str = ""
    fraction: float | None = None


class Underway:
    """The effects that are being performed, by what was heard of them; ``hear`` signals and ``tell`` records, in any order."""

    def __init__(self) -> None:
        self._doing: OrderedDict[str, Doing] = OrderedDict()
        # The least attempt of an effect that is worth hearing.
        self._attempts: OrderedDict[str, int] = OrderedDict()
        # Records by which effects may have ended: what caused them, and their family.
        self._ends: OrderedDict[str, str] = OrderedDict()

    @property
    def doing(self) -> tuple[Doing, ...]:
        """The effects under way, in the order in which they were first heard of; safe to ask for from another thread."""
        # One step of the interpreter: no other thread can change the dictionary meanwhile.
        return tuple(self._doing.values())

    def __contains__(self, intent_id: object) -> bool:
        return intent_id in self._doing

    def hear(self, signal: Signal) -> Doing | None:
        """Take a signal in; what is under way with it, None if it says nothing any more."""
        work = signal.intent_id
        known = self._doing.get(work)
        attempt = max(self._attempts.get(work, 0), 0 if known is None else known.attempt)
        if self._ends.get(work) == _family(signal.topic) or signal.attempt < attempt:
            return None
        if known is None or signal.attempt > known.attempt:
            known = Doing(
                run=signal.run,
                stream=signal.stream,
                intent_id=work,
                topic=signal.topic,
                task=signal.task,
                attempt=signal.attempt,
            )
        if signal.ordinal <= known.ordinal:
            return None
        self._doing[work] = now = _with(known, signal)
        while len(self._doing) > MOST:
            self._doing.popitem(last=False)
        return now

    def tell(self, record: Record) -> None:
        """Take in what the log says: attempts that begin or fail, and results."""
        work = record.causation_id
        family, _, word = record.topic.rpartition(".")
        if work is None or word == "cancel_requested":
            return
        attempt = _attempt(record)
        if word in _BEGINS or word in _GOES_ON:
            least = attempt if word in _BEGINS else attempt + 1
            if least > self._attempts.get(work, 0):
                _remember(self._attempts, work, least)
            known = self._doing.get(work)
            if known is not None and known.attempt < least:
                del self._doing[work]
            return
        _remember(self._ends, work, family)
        known = self._doing.get(work)
        if known is not None and _family(known.topic) == family:
            del self._doing[work]


def _with(doing: Doing, signal: Signal) -> Doing:
    missed = signal.left_out > 0 or signal.ordinal != doing.ordinal + 1
    now = replace(doing, ordinal=signal.ordinal, whole=doing.whole and not missed)
    if signal.kind == "progress":
        return replace(now, progress=signal.text, fraction=signal.fraction)
    # Pieces with something missing between them would make words that nobody said.
    text = signal.text if missed else doing.text + signal.text
    return replace(now, text=text[-KEPT:])


def _attempt(record: Record) -> int:
    attempt = record.data.get("attempt") if isinstance(record.data, dict) else None
    return attempt if isinstance(attempt, int) else 0


def _family(topic: str) -> str:
    return topic.rpartition(".")[0]


def _remember(known: OrderedDict[str, T], work: str, value: T) -> None:
    known[work] = value
    while len(known) > _REMEMBERED:
        known.popitem(last=False)
