"""agents and agent: who is there and what waits, and a process of your own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.running import until_stopped
from dashboard.cli.shell import Shell
from dashboard.cli.text import columns, duration, plural

if TYPE_CHECKING:
    from hive_bus.crew import Crew
    from hive_core_db.records import Lease, Partition, WorkItem


@command("agents", examples=("agents", "agents --json"))
async def agents(shell: Shell) -> None:
    """Show who serves this database, and what waits.

    Processes with a live lease, groups and who holds their partitions, and how much waits in each queue.
    """
    async with shell.bus() as bus:
        leases = await bus.store.leases.live()
        items = await bus.store.work.items()
        head, now = await bus.head(), bus.now()
        groups = {name: await bus.store.checkpoints.partitions(name) for name in await bus.store.checkpoints.groups()}
        lags = {name: _lag(rows, head) for name, rows in groups.items()}
    owners = {lease.lease_id: lease.owner for lease in leases}
    processes = [_process(lease, groups.values(), items, now) for lease in leases]
    shared = [_group(name, rows, owners, lags[name]) for name, rows in groups.items()]
    queues = _queues(items)
    if shell.json:
        shell.emit_all([*processes, *shared, *queues])
        return
    _print(shell, processes, shared, queues)


def _process(lease: Lease, groups: Iterable[list[Partition]], items: list[WorkItem], now: int) -> dict[str, Any]:
    held = sum(row.lease_id == lease.lease_id for rows in groups for row in rows)
    return {
        "kind": "process",
        "owner": lease.owner,
        "lease_id": lease.lease_id,
        "since": lease.opened_at,
        "up_seconds": round((now - lease.opened_at) / 1_000_000, 3),
        "partitions": held,
        "working_on": sum(item.lease_id == lease.lease_id for item in items),
    }


def _group(name: str, rows: list[Partition], owners: Mapping[str, str], lag: int) -> dict[str, Any]:
    holders = Counter(owners.get(row.lease_id, "nobody") if row.lease_id else "nobody" for row in rows)
    return {"kind": "group", "group": name, "partitions": len(rows), "held_by": dict(holders), "behind": lag}


def _lag(rows: list[Partition], head: int) -> int:
    """How many positions the slowest partition has not passed yet."""
    return head - min((row.position for row in rows), default=head)


def _queues(items: list[WorkItem]) -> list[dict[str, Any]]:
    depth: dict[str, Counter[str]] = {}
    for item in items:
        depth.setdefault(item.queue, Counter())[item.state] += 1
    return [{"kind": "queue", "queue": queue, **dict(states)} for queue, states in sorted(depth.items())]


def _print(
    shell: Shell, processes: list[dict[str, Any]], groups: list[dict[str, Any]], queues: list[dict[str, Any]]
) -> None:
    """Three tables, each only when there is something in it."""
    width = shell.width
    serving = [
        (one["owner"], duration(one["up_seconds"]), str(one["partitions"]), str(one["working_on"]), one["lease_id"])
        for one in processes
    ]
    shared = [
        (
            one["group"],
            str(one["partitions"]),
            str(one["behind"]),
            ", ".join(f"{owner} {count}" for owner, count in sorted(one["held_by"].items())),
        )
        for one in groups
    ]
    waiting = [
        (one["queue"], ", ".join(f"{count} {state}" for state, count in one.items() if state not in {"kind", "queue"}))
        for one in queues
    ]
    tables = [
        columns(
            serving,
            width=width,
            flexible=(4,),
            right=(1, 2, 3),
            head=("process", "up", "partitions", "works on", "lease"),
        ),
        columns(shared, width=width, flexible=(3,), right=(1, 2), head=("group", "partitions", "behind", "held by")),
        columns(waiting, width=width, flexible=(1,), head=("queue", "items")),
    ]
    for number, table in enumerate(one for one in tables if one):
        shell.print(*([""] if number else []), *table)
    if not processes:
        shell.say("no process serves this database", f"try: {shell.command('up')}")


@command("agent", examples=("agent shop.agents:billing", "agent workers:builder --db /srv/hive.db"))
async def agent(
    shell: Shell,
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="Where the Agent is; the current directory first.")
    ],
) -> int:
    """Run a process of your own: an Agent with its handlers and hands.

    As many processes as you like share the work.
    """
    from hive_bus import open_bus, tune_process
    from hive_bus.agent import load

    tune_process()
    found = load(target)
    url = shell.url(make=True)
    crews: list[Crew] = []

    async def serve() -> None:
        async with open_bus(url, source=f"agent/{found.name}") as bus:
            parts = [plural(len(found.subscriptions), "subscription"), plural(len(found.hands), "hand")]
            if shell.json:
                shell.emit(
                    {
                        "agent": found.name,
                        "database": url,
                        "subscriptions": len(found.subscriptions),
                        "hands": len(found.hands),
                    }
                )
            else:
                shell.say(f"agent {found.name}: {', '.join(parts)} on {shell.place}; Ctrl-C stops it")
            crew = found.crew(bus, health_seconds=shell.settings.health_seconds, limits=shell.settings.limits)
            crews.append(crew)
            await crew.run()

    async def drain(*, within: float) -> bool:
        return all([await crew.drain(within=within) for crew in crews])

    return await until_stopped(shell, serve(), drain)
