"""The life of a drone, one model session, in its own stream ``<run>/drone/<task>.<try>``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hive_bus.events.base import Fact


class DroneHatched(Fact, topic="drone.hatched"):
    """A drone exists: its profile. ``tools`` are full manifests, so that the log alone can show what it was given."""

    drone_id: str
    task_id: str = ""
    try_number: int = 1
    model: str = ""
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    max_turns: int = 40
    max_tokens: int = 8192
    capability: str = ""
    priority: int = 5


class DroneBuzzed(Fact, topic="drone.buzzed"):
    """The drone is given work: ``prompt``, and the workspace it starts from (``path``, ``base``)."""

    drone_id: str
    prompt: str = ""
    workspace: dict[str, Any] = Field(default_factory=dict)


class DroneResumed(Fact, topic="drone.resumed"):
    """The drone goes on in a branch, from where its parent's stood when that was forked: what was open is asked again."""

    drone_id: str


class DroneMessage(Fact, topic="drone.message"):
    """The drone said something for people to read."""

    drone_id: str
    text: str = ""
    turn: int = 1


class DroneCompleted(Fact, topic="drone.completed"):
    """The drone is done: its final text, and the commit that its last tool call left."""

    drone_id: str
    task_id: str = ""
    try_number: int = 1
    output: str = ""
    commit: str | None = None
    turns: int = 0


class DroneFailed(Fact, topic="drone.failed"):
    """The drone gave up, or its model failed for good."""

    drone_id: str
    task_id: str = ""
    try_number: int = 1
    reason: str = ""


class DroneInterrupted(Fact, topic="drone.interrupted"):
    """The drone stopped because somebody asked it to."""

    drone_id: str
    task_id: str = ""
    try_number: int = 1
    reason: str = ""


class DroneRetired(Fact, topic="drone.retired"):
    """The drone will not be given work again."""

    drone_id: str


class DroneInterruptRequested(Fact, topic="drone.interrupt_requested"):
    """A person, or the queen of a cancelled run, asks the drone to stop."""

    drone_id: str
    reason: str = ""
