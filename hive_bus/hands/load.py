"""Load: what the hands of a process do now and what became of what they did, counted for people.

The counts begin with the process and are kept nowhere; the log has every effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hive_bus.effects import Failure
from hive_bus.event import Event
from hive_bus.hands.hand import Hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy hands are: ``full`` are the queues for which no slot is free, ``ending`` the effects that were told to end, ``runs`` whose they are."""

    running: int = 0
    slots: int = 0
    done: int = 0
    failed: int = 0
    last: int = 0
    full: tuple[str, ...] = ()
    ending: frozenset[str] = field(default_factory=frozenset)
    runs: frozenset[str] = field(default_factory=frozenset)

    def __add__(self, other: Load) -> Load:
        return Load(
            running=self.running + other.running,
            slots=self.slots + other.slots,
            done=self.done + other.done,
            failed=self.failed + other.failed,
            last=max(self.last, other.last),
            full=tuple(sorted({*self.full, *other.full})),
            ending=self.ending | other.ending,
            runs=self.runs | other.runs,
        )


@dataclass(slots=True)
class Tally:
    """Counts the outcomes of a process; ``last`` is when the last one came, UTC microseconds."""

    done: int = 0
    failed: int = 0
    last: int = 0

    def note(self, outcome: Event | Failure, now: int) -> None:
        """Count an outcome: a failure, a result that says it failed, or a good one."""
        if isinstance(outcome, Failure) or getattr(outcome, "outcome", "completed") in {"failed", "unknown"}:
            self.failed += 1
        else:
            self.done += 1
        self.last = now

    def load(self, running: Mapping[Hand, int], *, ending: Iterable[str], runs: Iterable[str]) -> Load:
        """The load of hands that run so many effects each."""
        full = sorted({queue for hand, count in running.items() if count >= hand.concurrency for queue in hand.queues})
        return Load(
            running=sum(running.values()),
            slots=sum(hand.concurrency for hand in running),
            done=self.done,
            failed=self.failed,
            last=self.last,
            full=tuple(full),
            ending=frozenset(ending),
            runs=frozenset(runs),
        )
