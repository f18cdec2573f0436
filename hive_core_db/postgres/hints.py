"""What this process knows of streams' versions without asking: exact while nobody else appends.

A hint names the head as of which it holds, so the call uses it only if the log stands there. It is never too high: it comes
from committed appends alone. Several appends may be under way, and their answers may arrive in any order. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

_KEPT: Final = 65_536
# How quickly it is forgotten who appended: this share is left after one append of our own.
_FADING: Final = 0.8


class _Flight(NamedTuple):
    events: int
    streams: frozenset[str]


class _Early(NamedTuple):
    """An answer that does not join on to what is known: what lies before it may be these flights, still under way."""

    last: int
    versions: Mapping[str, int]
    awaits: set[int]


class Hints:
    """The versions of streams as of a head, and the appends under way that will move it."""

    def __init__(self) -> None:
        self._head = -1
        self._last_flight = 0
        self._versions: dict[str, int] = {}
        self._flying: dict[int, _Flight] = {}
        self._own = 0.0
        self._others = 0.0
        self._early: dict[int, _Early] = {}

    @property
    def others(self) -> float:
        """Which share of the latest events came from other processes, 0 to 1."""
        return self._others / (self._own + self._others) if self._others else 0.0

    def of(self, streams: Iterable[str]) -> list[int | None]:
        """What is known of each stream."""
        return list(map(self._versions.get, streams))

    def holds_at(self, streams: Collection[str]) -> int | None:
        """The head as of which these hints hold when all that is under way is in the log; None: that cannot be known."""
        if self._head < 0:
            return None
        head = self._head
        for flight in self._flying.values():
            if not flight.streams.isdisjoint(streams):
                return None
            head += flight.events
        for first, early in self._early.items():
            if not early.versions.keys().isdisjoint(streams):
                return None
            head += early.last - first + 1
        return head

    def depart(self, events: int, streams: Iterable[str]) -> int:
        """An append of so many events to these streams is under way; returns its number."""
        self._last_flight += 1
        self._flying[self._last_flight] = _Flight(events, frozenset(streams))
        return self._last_flight

    def arrive(self, flight: int, first: int, versions: Mapping[str, int]) -> None:
        """The append is in the log from ``first`` on; these are the versions of its streams now."""
        events = self._flying.pop(flight).events
        if events:
            self._early[first] = _Early(first + events - 1, versions, set(self._flying))
        self._land(flight)

    def fail(self, flight: int) -> None:
        """The append did not happen, or nobody knows whether it did."""
        del self._flying[flight]
        self._land(flight)

    def _land(self, flight: int) -> None:
        for early in self._early.values():
            early.awaits.discard(flight)
        for first in sorted(self._early):
            last, versions, awaits = self._early[first]
            if first != self._head + 1:
                if awaits:
                    break
                # Somebody else's events lie in between, in whatever streams.
                self._versions.clear()
                if self._head >= 0:
                    self._others += max(first - 1 - self._head, 0)
            self._own = _FADING * self._own + last - first + 1
            self._others *= _FADING
            del self._early[first]
            self._head = last
            self._versions.update(versions)
        if len(self._versions) > _KEPT:
            self._versions.clear()
