"""What the hive says about itself, in the stream ``system``."""

from __future__ import annotations

from hive_bus.events.base import Fact


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


class AlertRaised(Fact, topic="system.alert_raised"):
    """Something needs a person's eye."""

    name: str = ""
    message: str = ""


class AlertCleared(Fact, topic="system.alert_cleared"):
    """It no longer does."""

    name: str = ""
