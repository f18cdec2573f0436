"""What hands did of late: for each queue how much ended, how long it waited, how long it took, how much failed.

A pure fold of the events of effects, in log order. An effect is known by its intent's event id, which all its
events name as their cause. Durations are seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

from hive_bus import Record

_SIDE: Final = frozenset({"superseded", "cancel_requested"})
_STARTS: Final = frozenset({"started", "assigned"})
_ENDS: Final = frozenset({"attempt_failed", "failed", "cancelled", "returned", "responded"})
_TASK: Final = frozenset({"task.ready", "task.assigned", "task.returned", "task.attempt_failed"})
_BAD: Final = frozenset({"failed", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A queue over a while, by its name: ``task:`` and a capability, or the family of an intent. ``ended`` counts effects, ``failed`` those of them that failed, ``attempts_failed`` what was tried again.

    ``waited`` and ``worked`` are (median, 95th percentile) of the time until a hand took it, and from then to its end.
    """

    queue: str
    ended: int = 0
    failed: int = 0
    attempts_failed: int = 0
    waited: tuple[float, float] | None = None
    worked: tuple[float, float] | None = None

    @property
    def error_rate(self) -> float | None:
        """The share of failed ones, None where nothing ended."""
        return self.failed / self.ended if self.ended else None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"error_rate": self.error_rate}


def effect_topics(topics: Iterable[str]) -> list[str]:
    """Of all topics of a log, those that say how effects went: of every family that has starts, and of tasks."""
    known = list(topics)
    families = {topic.rpartition(".")[0] for topic in known if topic.endswith(".started")} - {"workflow", "task"}
    return [topic for topic in known if topic in _TASK or topic.rpartition(".")[0] in families]


def activities(records: Iterable[Record]) -> dict[str, Activity]:
    """What the records say, by the queue's name. Of effects that began before them only the end is counted."""
    asked: dict[str, Record] = {}
    started: dict[str, int] = {}
    taken: set[str] = set()
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    for record in records:
        family, _, word = record.topic.rpartition(".")
        # What a brain assigns goes to a drone: no hand takes it.
        if word in _SIDE or (record.topic == "task.assigned" and record.decided_by is not None):
            continue
        effect = record.causation_id or ""
        intent = asked.get(effect)
        queue = family if intent is None else _queue(intent)
        if word in _STARTS:
            # A second attempt waits for its turn, not for a hand.
            if intent is not None and effect not in taken:
                tallies[queue].waited.append(record.recorded_at - intent.recorded_at)
            started[effect] = record.recorded_at
            taken.add(effect)
        elif effect in started or word in _ENDS:
            tallies[queue].end(record, word, started.pop(effect, None))
        else:
            asked[record.event_id] = record
    return {name: tally.activity(name) for name, tally in sorted(tallies.items())}


class _Tally:
    """One capability while it is counted."""

    def __init__(self) -> None:
        self.ended = self.failed = self.attempts_failed = 0
        self.waited: list[int] = []
        self.worked: list[int] = []

    def end(self, record: Record, word: str, began: int | None) -> None:
        """An attempt, or the whole effect, ended."""
        if began is not None:
            self.worked.append(record.recorded_at - began)
        if word == "attempt_failed":
            self.attempts_failed += 1
            return
        self.ended += 1
        self.failed += word == "failed" or (word == "returned" and record.data.get("outcome") in _BAD)

    def activity(self, name: str) -> Activity:
        return Activity(
            queue=name,
            ended=self.ended,
            failed=self.failed,
            attempts_failed=self.attempts_failed,
            waited=_percentiles(self.waited),
            worked=_percentiles(self.worked),
        )


def _queue(intent: Record) -> str:
    """Which queue an intent waits in, as far as its event says: a task's capability or kind, else its family."""
    if intent.topic != "task.ready":
        return intent.topic.rpartition(".")[0]
    return f"task:{intent.data.get('capability') or intent.data.get('kind') or 'run'}"


def _percentiles(durations: Sequence[int]) -> tuple[float, float] | None:
    """The median and the 95th percentile in seconds (nearest rank); None of nothing."""
    if not durations:
        return None
    ordered = sorted(durations)
    median, high = (ordered[ceil(len(ordered) * share) - 1] / 1_000_000 for share in (0.5, 0.95))
    return median, high
