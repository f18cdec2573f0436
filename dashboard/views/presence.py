"""Agents as people see them: who is there, and, apart from that, what each does.

Presence is whether the lease that an agent runs under lives; execution is what its last renewal said.
Pure functions of leases and of what the log says about agents. Times are UTC microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from hive_bus import Record
from hive_core_db.records import Lease

Presence = Literal["online", "draining", "offline", "lost"]
_ORDER: Final = ("online", "draining", "lost", "offline")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """One agent in one process; an agent that runs nowhere has a view without a process.

    ``since`` is when its presence began. ``running``, ``slots``, ``done`` and ``failed`` are effects of its hands since
    its process began, None where it has no hands; ``last_at`` is when the last one ended.
    """

    name: str
    kind: str
    presence: Presence
    since: int
    reason: str = ""
    process: str = ""
    host: str = ""
    pid: int | None = None
    lease_id: str = ""
    capabilities: tuple[str, ...] = ()
    specialisation: str = ""
    version: str = ""
    digest: str = ""
    running: int | None = None
    slots: int | None = None
    done: int | None = None
    failed: int | None = None
    busy: bool = False
    last_at: int | None = None
    wrong: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """A process with a live lease: what it calls itself, where it is, and what is wrong with it.

    ``tail`` is where its live tail comes from, ``nats`` or ``database`` ("" where it has no NATS), ``tail_why`` why from the latter.
    """

    owner: str
    lease_id: str
    since: int
    host: str = ""
    pid: int | None = None
    draining: bool = False
    agents: tuple[str, ...] = ()
    wrong: Mapping[str, str]
    tail: str = ""
    tail_why: str = ""


def agent_views(
    live: Sequence[Lease], ended: Sequence[Lease], gone: Sequence[Record], registered: Mapping[str, Record]
) -> list[AgentView]:
    """The agents of all processes, those that live first.

    ``ended`` are leases that nobody closed although their time is over: their agents are lost. ``gone`` are
    ``agent.offline`` records, newest first, and ``registered`` each agent's last registration: for those that run nowhere.
    """
    views = [view for lease in live for view in _of_lease(lease, lost=False)]
    views += [view for lease in ended if not lease.closed for view in _of_lease(lease, lost=True)]
    there = {view.name for view in views}
    for record in gone:
        name = str(record.data.get("name", ""))
        if name and name not in there:
            there.add(name)
            views.append(_offline(name, record, registered.get(name)))
    return sorted(views, key=lambda view: (_ORDER.index(view.presence), view.name, view.since, view.lease_id))


def agents_then(said: Sequence[Record], registered: Mapping[str, Record]) -> list[AgentView]:
    """The agents as of a moment of the past, from what the log had said of them by then, in log order.

    Leases are of the present alone: what an agent worked on, and that it was lost before anybody saw it, nobody knows.
    """
    there: dict[tuple[str, str], AgentView] = {}
    gone: dict[str, Record] = {}
    for record in said:
        name, lease_id = str(record.data.get("name", "")), str(record.data.get("lease_id", ""))
        before = there.pop((name, lease_id), None)
        if record.topic == "agent.offline":
            gone[name] = record
        elif record.topic == "agent.online" or before is not None:
            there[name, lease_id] = _said_then(record, before)
    views = [_described(view, registered.get(view.name)) for view in there.values()]
    names = {view.name for view in views}
    views += [_offline(name, record, registered.get(name)) for name, record in gone.items() if name not in names]
    return sorted(views, key=lambda view: (_ORDER.index(view.presence), view.name, view.since, view.lease_id))


def _said_then(record: Record, before: AgentView | None) -> AgentView:
    """An agent that is there, after what was just said of it."""
    view = before or AgentView(
        name=str(record.data.get("name", "")),
        kind="agent",
        presence="online",
        since=record.recorded_at,
        process=record.source,
        host=str(record.data.get("host", "")),
        pid=_number(record.data, "pid"),
        lease_id=str(record.data.get("lease_id", "")),
    )
    if record.topic == "agent.draining":
        return replace(view, presence="draining", since=record.recorded_at)
    return replace(view, busy=bool(record.data.get("busy", True))) if record.topic == "agent.busy" else view


def process_view(lease: Lease) -> ProcessView:
    """A live lease as a process."""
    info = _info(lease)
    wrong, tail = info.get("wrong"), info.get("tail")
    if not isinstance(tail, dict):
        tail = {}
    return ProcessView(
        owner=lease.owner,
        lease_id=lease.lease_id,
        since=lease.opened_at,
        host=str(info.get("host", "")),
        pid=_number(info, "pid"),
        draining=info.get("state") == "draining",
        agents=tuple(sorted(_agents(info))),
        wrong={str(name): str(message) for name, message in wrong.items()} if isinstance(wrong, dict) else {},
        tail=str(tail.get("source", "")),
        tail_why=str(tail.get("why", "")),
    )


def live_tails(processes: Sequence[ProcessView]) -> str:
    """A sentence on where processes' live tails come from; "" where none has a NATS server."""
    fed = [process for process in processes if process.tail]
    if not fed:
        return ""
    others = [f"{one.owner} (pid {one.pid}) from the database: {one.tail_why}" for one in fed if one.tail != "nats"]
    return "; ".join([f"from NATS in {len(fed) - len(others)} of {len(fed)}", *others])


def _of_lease(lease: Lease, *, lost: bool) -> list[AgentView]:
    info, process = _info(lease), process_view(lease)
    presence: Presence = "lost" if lost else "draining" if process.draining else "online"
    return [
        AgentView(
            name=name,
            kind=str(about.get("kind", "agent")),
            presence=presence,
            since=lease.expires_at if lost else _number(about, "since") or lease.opened_at,
            reason="its lease ran out" if lost else "",
            process=lease.owner,
            host=process.host,
            pid=process.pid,
            lease_id=lease.lease_id,
            capabilities=tuple(map(str, about.get("capabilities", ()))),
            specialisation=str(about.get("specialisation", "")),
            version=str(about.get("version", "")),
            digest=str(about.get("digest", "")),
            running=_number(about, "running"),
            slots=_number(about, "slots"),
            done=_number(about, "done"),
            failed=_number(about, "failed"),
            busy=bool(about.get("busy")),
            last_at=_number(about, "last") or None,
            wrong=tuple(f"{part}: {message}" for part, message in sorted(process.wrong.items())),
        )
        for name, about in _agents(info).items()
    ]


def _offline(name: str, record: Record, registration: Record | None) -> AgentView:
    view = AgentView(
        name=name,
        kind="agent",
        presence="offline",
        since=record.recorded_at,
        reason=str(record.data.get("reason", "")),
        lease_id=str(record.data.get("lease_id", "")),
    )
    return _described(view, registration)


def _described(view: AgentView, registration: Record | None) -> AgentView:
    """The agent with what it registered about itself."""
    about: dict[str, Any] = registration.data if registration is not None else {}
    return replace(
        view,
        kind=str(about.get("kind", "agent")),
        capabilities=tuple(map(str, about.get("capabilities", ()))),
        specialisation=str(about.get("specialisation", "")),
        version=str(about.get("version", "")),
        digest=str(about.get("digest", "")),
    )


def _info(lease: Lease) -> dict[str, Any]:
    """What the lease says; nothing where another program wrote something else there."""
    try:
        info = json.loads(lease.info)
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def _agents(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    agents = info.get("agents")
    found = agents.items() if isinstance(agents, dict) else ()
    return {str(name): about for name, about in found if isinstance(about, dict)}


def _number(about: Mapping[str, Any], field: str) -> int | None:
    value = about.get(field)
    return value if isinstance(value, int) else None
