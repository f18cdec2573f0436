"""One decision of the queen: the events so far, and the run as it will be after them.

Owns the trick that keeps decisions whole: each event is folded as soon as it is
decided, by the same fold that will read it back, so that what follows from it can
be decided in the same breath. It must not know what is decided.
"""

from __future__ import annotations

from agents.run_fold import fold
from agents.run_state import Run
from hive_bus.brains.brain import Input
from hive_bus.event import Draft, Event

__all__ = ["Turn"]


class Turn:
    """The run, and what was decided on it; lives for one call of ``decide``."""

    __slots__ = ("events", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: list[Event | Draft] = []

    def emit(self, event: Event, *, stream: str = "run") -> None:
        """Decide an event, in a stream within the run."""
        self.events.append(event if stream == "run" else Draft(event=event, stream=stream))
        # The id is the host's to give. Nothing in this turn refers to it, but open intents need different ones.
        record = Input(event, f"?{len(self.events)}", event.TOPIC, stream, self.run.id, None, "queen", 0)
        self.run = fold(self.run, record)
