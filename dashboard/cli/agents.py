"""agents and agent: who is there and what each does, and a process of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dashboard.cli.command import command
from dashboard.cli.labels import At, as_of
from dashboard.cli.running import until_stopped
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, columns, duration, plural

if TYPE_CHECKING:
    from dashboard.views import AgentView
    from hive_bus.registry.crew import Crew

_SIGNS: Final = {
    "online": ("●", "green"),
    "draining": ("◌", "yellow"),
    "lost": ("✗", "bold red"),
    "offline": ("·", "dim"),
}


@command("agents", examples=("agents", "agents --json", "agents --at 14:03"))
async def agents(shell: Shell, at: At = None) -> None:
    """Show the agents: who is there, and what each does.

    Presence is whether the process's lease lives; what it works on is what its last renewal said. `hive status` shows
    queues, groups and how well the hive is. Of the past (--at) only presence is known.
    """
    from dashboard.views import read_agents, read_agents_at

    async with shell.bus() as bus:
        then = await as_of(shell, bus, at)
        views = await read_agents(bus) if then is None else await read_agents_at(bus, then)
        now = bus.now() if then is None else then.time
    if shell.json:
        shell.emit_all(view.as_dict() for view in views)
        return
    shell.print(*_table(views, shell.width, now))
    if then is None and all(view.presence == "offline" for view in views):
        shell.say("no process serves this database", f"try: {shell.command('up')}")


def _table(views: Sequence[AgentView], width: int, now: int) -> list[Line]:
    rows = [
        (
            view.name,
            _presence(view),
            duration((now - view.since) / 1_000_000),
            *_execution(view, now),
            f"{view.host}:{view.pid}" if view.pid else view.reason,
            f"{view.version} {view.digest[:6]}".strip(),
            " ".join(view.capabilities),
            view.specialisation,
        )
        for view in views
    ]
    head = ("agent", "is", "since", "works on", "done", "failed", "last", "where", "version", "can", "what for")
    return columns(rows, width=width, flexible=(10, 8, 9, 7), right=(2, 3, 4, 5, 6), head=head)


def _presence(view: AgentView) -> tuple[str, str]:
    if view.wrong:
        return f"! {view.presence}", "bold yellow"
    sign, style = _SIGNS[view.presence]
    return f"{sign} {'busy' if view.busy and view.presence == 'online' else view.presence}", style


def _execution(view: AgentView, now: int) -> tuple[str, str, str, str]:
    """What it works on now, what it did, and when it last ended something; nothing for one without hands."""
    if view.running is None:
        return "", "", "", ""
    last = f"{duration((now - view.last_at) / 1_000_000)} ago" if view.last_at else ""
    return f"{view.running} of {view.slots}", str(view.done), str(view.failed or ""), last


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
        async with open_bus(url, source=f"agent/{found.name}", nats=shell.settings.nats) as bus:
            shell.carry_signals(bus)
            parts = [plural(len(found.subscriptions), "subscription"), plural(len(found.hands), "hand")]
            if shell.json:
                shell.emit(
                    {
                        "agent": found.name,
                        "database": shell.place,
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
