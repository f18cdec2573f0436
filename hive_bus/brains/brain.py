"""The brain: a pure decider. What it sees, what it may return; the host is in ``host.py``.

A brain has no clock, no randomness, no I/O and no await. It never sees position,
version or ``recorded_at``; its only time is ``occurred_at``, and it never compares
two times: what must happen later is a timer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Literal, NamedTuple, TypeVar

from hive_bus.event import Draft, Event

State = TypeVar("State")


class Input(NamedTuple):
    """What a brain sees of an event. ``stream`` is the name within the run (``run``, ``drone/fix.1``)."""

    event: Event
    event_id: str
    topic: str
    stream: str
    correlation_id: str
    causation_id: str | None
    source: str
    occurred_at: int


class Brain(ABC, Generic[State]):
    """A pure decider: ``initial``, ``evolve``, ``decide``.

    ``decide`` is called after ``evolve`` of the same input, never on the brain's own
    decisions (they are only folded). It decides from its state, not from having seen an
    event. What it returns is encoded, stored and decoded again before it is folded.
    States are never changed in place: ``evolve`` returns a new one (frozen dataclasses,
    fresh dicts); whatever is iterated has a defined order.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    folds: ClassVar[tuple[str, ...]]
    """Patterns of the topics it folds; its own decisions must be among them if it is to see them again."""
    keyed_by: ClassVar[Literal["correlation", "stream"]] = "correlation"
    stream_prefix: ClassVar[str] = ""
    """Keyed by stream: only streams within the run that begin so; ``drone/`` for the drone."""
    home: ClassVar[str] = "run"
    """Keyed by correlation: the stream within the run where decisions go unless they say otherwise."""

    opens: ClassVar[str] = ""
    """The topic that begins a key: an event of it at version 1 of its stream has no history before it."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Modules, beside the brain's own, that its decisions depend on: they are part of its digest."""

    @abstractmethod
    def initial(self) -> State:
        """The state before the first input."""

    @abstractmethod
    def evolve(self, state: State, record: Input) -> State:
        """The state after ``record``."""

    @abstractmethod
    def decide(self, state: State, record: Input) -> Sequence[Event | Draft]:
        """What follows from ``state``, which has ``record`` in it already."""

    def inherit(self, state: State, forked: Input) -> State:
        """The state of a branch, from its parent's where that had stopped to handle when the branch was forked.

        Called once, before anything is handled in the branch: first what the parent left unhandled, then
        ``workflow.forked`` itself (a brain that folds it asks again for what is open then). Intents that are open
        here are the parent's: they end in the branch only if their results are inherited too.
        """
        return state

    def ended(self, state: State) -> bool:
        """Whether nothing can follow any more, so that the host may forget the key."""
        return False
