"""Timers: how a brain asks for later. Only the clock makes them fire."""

from __future__ import annotations

from pydantic import ConfigDict

from hive_bus.effects import Cancelled, CancelRequested, Intent, WorkPolicy
from hive_bus.event import Event
from hive_bus.events.base import Fact


class TimerSet(Intent, topic="timer.set", results=("timer.fired",)):
    """Fire after ``seconds``; ``timer_id`` and ``note`` come back with it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    timer_id: str
    seconds: float
    note: str = ""

    def work(self) -> WorkPolicy:
        """Waits for time."""
        return WorkPolicy(labels=("timer",), waits_for="time", delay=self.seconds)

    def due(self) -> Event:
        """The time has come."""
        return TimerFired(timer_id=self.timer_id, note=self.note)


class TimerFired(Fact, topic="timer.fired"):
    """The time has come."""

    timer_id: str = ""
    note: str = ""


class TimerCancelled(Cancelled, topic="timer.cancelled"):
    """The timer will not fire."""


class TimerCancelRequested(CancelRequested, topic="timer.cancel_requested"):
    """The brain no longer wants the timer."""
