"""What the auditor must know of topics: which end an intent, which begin an attempt, which intents wait in the queue."""

from __future__ import annotations

from typing import TypedDict

import hive_bus.events  # noqa: F401 - the built-in intents are registered by importing them
from hive_bus import Intent
from hive_bus.codec import decode
from hive_bus.event import event_class, registered_topics
from hive_errors import BusError


class Words(TypedDict):
    """The arguments of the auditor's vocabulary, as plain collections."""

    results: dict[str, tuple[str, ...]]
    starts: list[str]
    retries: list[str]


def words() -> Words:
    """The vocabulary of every intent that is registered in this process."""
    found = intents()
    return Words(
        results={topic: intent.ends() for topic, intent in found.items()},
        # A task's claim is its assignment.
        starts=[f"{intent.family()}.started" for intent in found.values()] + ["task.assigned"],
        retries=[f"{intent.family()}.attempt_failed" for intent in found.values()],
    )


def intents() -> dict[str, type[Intent]]:
    """Every registered intent by its topic."""
    classes = {topic: event_class(topic) for topic in registered_topics()}
    return {topic: cls for topic, cls in classes.items() if cls is not None and issubclass(cls, Intent)}


def queued(topic: str, payload: str) -> bool:
    """Whether an intent goes into the work queue at all; one that cannot be read is not judged."""
    cls = event_class(topic)
    if cls is None:
        return False
    try:
        intent = decode(topic, cls.VERSION, payload)
    except BusError:
        return False
    return isinstance(intent, Intent) and intent.work() is not None
