"""Where the part of a queue that is still alive begins, as this process knows it. Pure: it asks nobody, and knows no SQL.

Claimed items leave dead entries at the front of the queue's index. A vacuum takes them, but not while some
old transaction is open, and a look that walked them all would cost more with every item ever claimed. So where whole looks have become
slow, a look begins at the first item that the last one found, and at an empty queue where it stood a moment ago: a new item's turn is not
less than the queue's present one. What can appear before that (an urgent item, or one given back with its old turn) is found by
a whole look, which is due when the last one's cost is a small part of the time since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

Place = tuple[float, int]
"""Turn and position of an item: the order of a queue."""

START: Final[Place] = float("-inf"), 0
_END: Final[Place] = float("inf"), 0

# A whole look that takes no longer (seconds) may be made every time.
_QUICK: Final = 0.002
# Of the time, one part in so many goes into slow ones; but one is due after so long (seconds) whatever it costs.
_SHARE: Final = 20
_LONGEST: Final = 5.0
# How often it is asked where the queues stand; the answer counts from the next time on, when older beliefs are gone (seconds).
_EVERY: Final = 0.05


class QueueStarts:
    """The starts of all queues that are looked at. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._first: dict[str, Place] = {}
        self._stood: Mapping[str, Place] = {}
        self._stands: Mapping[str, Place] = {}
        self._stand_at = float("-inf")
        self._whole_at = float("-inf")

    def whole_is_due(self, now: float) -> bool:
        """Whether the next look should begin at the very start."""
        return now >= self._whole_at

    def stand_is_due(self, now: float) -> bool:
        """Whether it should be asked where the queues stand."""
        return now >= self._stand_at

    def stands(self, places: Mapping[str, Place], now: float) -> None:
        """Each queue's present turn, and the log's head."""
        self._stood, self._stands, self._stand_at = self._stands, places, now + _EVERY

    def start(self, queue: str) -> Place:
        """Where a look at the queue may begin."""
        first = self._first.get(queue, START)
        return self._stood.get(queue, START) if first == _END else first

    def looked(
        self,
        queues: Sequence[str],
        found: Iterable[tuple[str, Place]],
        *,
        complete: bool,
        whole: bool,
        begun: float,
        now: float,
    ) -> None:
        """What a look found, in order; ``complete`` if there was no more than it could hold."""
        first: dict[str, Place] = {}
        for queue, place in found:
            first.setdefault(queue, place)
        for queue in queues:
            if queue in first or complete:
                self._first[queue] = first.get(queue, _END)
        if whole:
            took = now - begun
            self._whole_at = now if took <= _QUICK else now + min(_SHARE * took, _LONGEST)

    def forget(self) -> None:
        """Something came back with an old turn: the next look is a whole one."""
        self._whole_at = float("-inf")
