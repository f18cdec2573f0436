"""What the hive says about itself, in the stream ``system``."""

from __future__ import annotations

from typing import Any

from hive_bus.events.base import Fact
from hive_bus.upcasting import upcaster


class EpochStarted(Fact, topic="system.epoch_started"):
    """A new epoch of the log begins at ``first_position``."""

    epoch: int = 0
    first_position: int = 0
    reason: str = ""


class KeyParked(Fact, topic="system.parked"):
    """A key of a group failed too often and waits for a person, or its first failure was set aside."""

    group: str = ""
    key: str = ""
    position: int = 0
    attempt: int = 0
    error: str = ""


class KeyUnparked(Fact, topic="system.unparked"):
    """A parked key is tried again."""

    group: str = ""
    key: str = ""


class EventDiscarded(Fact, topic="system.discarded"):
    """An event was discarded for a group: it counts as handled, and a rebuild leaves it out."""

    group: str = ""
    key: str = ""
    position: int = 0
    reason: str = ""


class LogArchived(Fact, topic="system.archived"):
    """A range of the log was sealed."""

    first: int = 0
    last: int = 0


class EventRedacted(Fact, topic="system.redacted"):
    """A payload was replaced by its digest."""

    position: int = 0
    reason: str = ""


class ViewSwitched(Fact, topic="system.view_switched"):
    """Another version of a read model answers from now on: whoever keeps it goes over to that."""

    view: str = ""
    version: int = 0


class AlertRaised(Fact, topic="system.alert_raised", version=2):
    """Something needs a person's eye. Of a process's own health: ``lease_id`` is whose; it is over when that ends."""

    name: str = ""
    message: str = ""
    lease_id: str = ""
    process: str = ""


class AlertCleared(Fact, topic="system.alert_cleared", version=2):
    """It no longer does."""

    name: str = ""
    lease_id: str = ""
    process: str = ""


def _unsaid(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 named no process; what it left out has its default."""
    return data


for _cls in (AlertRaised, AlertCleared):
    upcaster(_cls.TOPIC, from_version=1)(_unsaid)
