"""Agents come and go, in the stream ``agent/<name>``. Heartbeats are leases, never events: only changes are."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hive_bus.events.base import Fact
from hive_bus.upcasting import upcaster


class AgentRegistered(Fact, topic="agent.registered", version=2):
    """An agent says what it can do; said again only when something of it has changed.

    ``capabilities`` are the queues that its hands take from and the intents they perform, ``concurrency`` how many
    effects a process of it performs at once, ``follows`` the topics that its brain or its functions fold. ``version``
    is its own or the distribution's, ``digest`` that of its code. ``specialisation`` says in words what it is for.
    """

    name: str = ""
    capabilities: tuple[str, ...] = ()
    version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    kind: str = "agent"
    specialisation: str = ""
    digest: str = ""
    concurrency: int = 0
    follows: tuple[str, ...] = ()


class AgentOnline(Fact, topic="agent.online", version=2):
    """The agent runs in a process, whose lease is open; said once."""

    name: str = ""
    lease_id: str = ""
    host: str = ""
    pid: int = 0


class AgentOffline(Fact, topic="agent.offline", version=2):
    """The agent runs no more in that process; ``reason`` says why. Exactly one for each ``agent.online``.

    ``crashed``: its process could not say so itself; whoever saw its lease ended said it.
    """

    name: str = ""
    lease_id: str = ""
    reason: str = ""
    crashed: bool = False


class AgentBusy(Fact, topic="agent.busy", version=2):
    """No slot is free for ``capabilities``, and has not been for a while; or, with ``busy`` false, there is one again."""

    name: str = ""
    lease_id: str = ""
    busy: bool = True
    capabilities: tuple[str, ...] = ()
    running: int = 0


class AgentDraining(Fact, topic="agent.draining", version=2):
    """The agent finishes what it has, for ``within`` seconds at most, and takes nothing new."""

    name: str = ""
    lease_id: str = ""
    running: int = 0
    within: float = 0.0


def _unsaid(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 said less; what it left out has its default."""
    return data


for _cls in (AgentRegistered, AgentOnline, AgentOffline, AgentBusy, AgentDraining):
    upcaster(_cls.TOPIC, from_version=1)(_unsaid)
