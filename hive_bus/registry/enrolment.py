"""An agent as the registry knows it: what it can do, what it has to do, and the ids of what is said about it.

Pure but for one question to the log, which says what an agent registered last.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hive_bus.codec import encode
from hive_bus.envelope import encode_event
from hive_bus.events.agent import AgentRegistered
from hive_bus.hands.load import Load
from hive_bus.ids import derived_event_id
from hive_bus.record import Record
from hive_core_db.records import Lease, NewEvent

if TYPE_CHECKING:
    from hive_bus.bus import Bus

BUSY_AFTER: Final = 5
"""Looks (one a second) in a row without a free slot before it is said."""
FREE_AFTER: Final = 30
"""Looks in a row with a free slot before that is said: at most one pair of events in 35 seconds."""
PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """An agent that this process runs. ``load`` tells what it does now, ``health`` what is wrong (None: nothing)."""

    name: str
    kind: str = "agent"
    capabilities: tuple[str, ...] = ()
    specialisation: str = ""
    version: str = ""
    digest: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 0
    follows: tuple[str, ...] = ()
    load: Callable[[], Load] | None = None
    health: Callable[[], Awaitable[str | None]] | None = None

    @property
    def event(self) -> AgentRegistered:
        """What it registers as."""
        return AgentRegistered(
            name=self.name,
            kind=self.kind,
            capabilities=self.capabilities,
            specialisation=self.specialisation,
            version=self.version,
            digest=self.digest,
            labels=dict(self.labels),
            concurrency=self.concurrency,
            follows=self.follows,
        )

    def about(self, *, since: int, busy: bool) -> dict[str, Any]:
        """What the lease says of it: JSON values. ``since`` is when it came, UTC microseconds: what is said of it follows."""
        said = self.event
        told: dict[str, Any] = {"kind": said.kind, "since": since, "version": said.version, "digest": said.digest}
        told |= {"capabilities": list(said.capabilities), "specialisation": said.specialisation}
        if self.load is not None:
            load = self.load()
            told |= {"running": load.running, "slots": load.slots, "done": load.done, "failed": load.failed}
            told |= {"last": load.last, "busy": busy}
        return told


@dataclass(slots=True)
class Busyness:
    """Whether an agent counts as busy: changes that last are said, flickering is not."""

    busy: bool = False
    looks: int = 0

    def turned(self, *, full: bool) -> bool | None:
        """What it has turned to with this look, None while it is as it was."""
        self.looks = self.looks + 1 if full is not self.busy else 0
        if self.looks < (FREE_AFTER if self.busy else BUSY_AFTER):
            return None
        self.busy, self.looks = full, 0
        return full


async def registered(bus: Bus, agents: Sequence[Enrolment]) -> list[NewEvent]:
    """What has to be said: the registrations that are not what the log says already.

    Two processes that say the same at the same moment give it the same id: it follows from what is
    said and from the registration before.
    """
    last = await last_registrations(bus, [agent.name for agent in agents])
    news = []
    for agent in agents:
        body, before = encode(agent.event).decode(), last.get(agent.name)
        if before is not None and before.payload == body:
            continue
        known = "" if before is None else before.event_id
        stream, at = f"agent/{agent.name}", 0 if before is None else before.occurred_at
        event_id = derived_event_id(at, "agent.registered", agent.name, body, known)
        new = encode_event(agent.event, stream=stream, correlation_id=stream, source=agent.name, event_id=event_id)
        news.append(new)
    return news


async def last_registrations(
    bus: Bus, names: Iterable[str] | None = None, *, at: int | None = None
) -> dict[str, Record]:
    """The last ``agent.registered`` up to position ``at`` of each of these agents, or of all.

    It reads as many events as there were registrations.
    """
    wanted = None if names is None else set(names)
    found: dict[str, Record] = {}
    before = None if at is None else at + 1
    while wanted is None or wanted - set(found):
        rows = await bus.store.log.latest([AgentRegistered.TOPIC], limit=PAGE, before=before)
        for row in rows:
            record = Record._make(row)
            found.setdefault(str(record.data.get("name", "")), record)
        if len(rows) < PAGE:
            break
        before = rows[-1].position
    return found


def online_id(lease_id: str, name: str, since: int) -> str:
    """The id of the one ``agent.online`` of an agent that came then, under this lease."""
    return derived_event_id(since, "agent.online", lease_id, name)


def offline_id(lease_id: str, name: str, since: int) -> str:
    """The id of the one ``agent.offline`` of an agent that came then, whoever says it."""
    return derived_event_id(since, "agent.offline", lease_id, name)


def lost_agents(lease: Lease) -> list[tuple[str, int]]:
    """Who was still there when the lease ended, as its last renewal said, and since when."""
    try:
        agents = json.loads(lease.info)["agents"]
        return sorted((str(name), int(about["since"])) for name, about in agents.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


@cache
def package_version() -> str:
    """The version of the installed distribution; empty in a checkout that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("hive-orchestrator")
    except metadata.PackageNotFoundError:
        return ""


@cache
def code_digest(*modules: str) -> str:
    """Twelve hex digits of the sha256 of the modules' sources; empty where they have none."""
    files = [getattr(importlib.import_module(name), "__file__", None) for name in modules]
    sources = [Path(file).read_bytes() for file in files if file and Path(file).is_file()]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()[:12] if sources else ""
