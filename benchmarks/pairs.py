"""Paired measurement: floor and candidate take turns, and the median of the pair ratios counts.

The machine's speed changes from second to second; a ratio of two turns that lie side by
side does not. Figures are rates (per second) unless their unit says otherwise.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

SLICE = 0.5
PAIRS = 6

Turn = Callable[[], Awaitable[float]]
"""Measures once: a rate, or a time in the figure's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What takes turns; ``settle`` runs before each turn and is not measured, ``also`` is said beside the figure."""

    floor: Turn
    candidate: Turn
    settle: Callable[[], Awaitable[None]] | None = None
    also: Callable[[], Mapping[str, object]] = dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table: the median ratio, what it must and should be, and the two medians."""

    name: str
    ratio: float
    must: float
    aim: float
    candidate: float
    floor: float
    unit: str
    pairs: int
    lower_is_better: bool = False
    also: Mapping[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the must is met."""
        return self.ratio <= self.must if self.lower_is_better else self.ratio >= self.must

    def say(self) -> None:
        """One JSON line."""
        line = {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "must": self.must,
            "aim": self.aim,
            "holds": self.holds,
            "candidate": round(self.candidate, 3),
            "floor": round(self.floor, 3),
            "unit": self.unit,
            "pairs": self.pairs,
            **self.also,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def rate(work: Callable[[float], Awaitable[int]], seconds: float = SLICE) -> float:
    """Units per second of work that goes on for so many seconds and returns how many units it did."""
    begin = time.perf_counter()
    done = await work(seconds)
    return done / (time.perf_counter() - begin)


def figure(
    name: str,
    rows: Sequence[tuple[float, float]],
    *,
    must: float,
    aim: float,
    unit: str,
    lower_is_better: bool = False,
    also: Mapping[str, object] | None = None,
) -> Figure:
    """The medians of pairs (floor, candidate)."""
    return Figure(
        name=name,
        ratio=statistics.median(ours / raw for raw, ours in rows),
        must=must,
        aim=aim,
        candidate=statistics.median(ours for _, ours in rows),
        floor=statistics.median(raw for raw, _ in rows),
        unit=unit,
        pairs=len(rows),
        lower_is_better=lower_is_better,
        also=also or {},
    )


async def paired(
    name: str, sides: Sides, *, must: float, aim: float, unit: str, lower_is_better: bool = False, pairs: int = PAIRS
) -> Figure:
    """Alternate floor and candidate; one turn of each first, to warm up."""

    async def turn(side: Turn) -> float:
        if sides.settle is not None:
            await sides.settle()
        return await side()

    rows = []
    for index in range(pairs + 1):
        # Who goes first alternates too: neither always inherits the other's caches.
        first, second = (sides.floor, sides.candidate) if index % 2 else (sides.candidate, sides.floor)
        one, two = await turn(first), await turn(second)
        rows.append((one, two) if index % 2 else (two, one))
    return figure(name, rows[1:], must=must, aim=aim, unit=unit, lower_is_better=lower_is_better, also=sides.also())
