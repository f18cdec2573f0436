"""Agents come and go, in the stream ``agent/<name>``. Heartbeats are leases, never events."""

from __future__ import annotations

from pydantic import Field

from hive_bus.events.base import Fact


class AgentRegistered(Fact, topic="agent.registered"):
    """An agent says what it can do."""

    name: str = ""
    capabilities: tuple[str, ...] = ()
    version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class AgentOnline(Fact, topic="agent.online"):
    """A process of the agent runs."""

    name: str = ""
    lease_id: str = ""


class AgentOffline(Fact, topic="agent.offline"):
    """A process of the agent ended; ``reason`` says how."""

    name: str = ""
    lease_id: str = ""
    reason: str = ""


class AgentBusy(Fact, topic="agent.busy"):
    """All slots of the agent are taken."""

    name: str = ""


class AgentDraining(Fact, topic="agent.draining"):
    """The agent finishes what it has and takes nothing new."""

    name: str = ""
