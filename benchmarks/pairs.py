"""Paired measurement: floor and candidate take turns, and the median of the pair ratios counts.

The machine's speed changes from second to second; a ratio of two slices that lie side by
side does not. Figures are rates (per second) unless a name says otherwise.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

SLICE = 0.5
PAIRS = 6

Slice = Callable[[float], Awaitable[int]]
"""Works for so many seconds, and returns how many units it did."""


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
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def rate(work: Slice, seconds: float = SLICE) -> float:
    """Units per second of one slice."""
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
    )


async def paired(
    name: str, *, floor: Slice, candidate: Slice, must: float, aim: float, unit: str, pairs: int = PAIRS
) -> Figure:
    """Alternate floor and candidate; one slice of each first, to warm up."""
    await rate(floor)
    await rate(candidate)
    rows = []
    for index in range(pairs):
        # Who goes first alternates too: neither always inherits the other's caches.
        first, second = (floor, candidate) if index % 2 == 0 else (candidate, floor)
        one, two = await rate(first), await rate(second)
        rows.append((one, two) if index % 2 == 0 else (two, one))
    return figure(name, rows, must=must, aim=aim, unit=unit)
