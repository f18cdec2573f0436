"""run and up: host a colony, for one run that is shown, or until stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import COMPLETED, FAILED, INTERRUPTED, WAITING
from dashboard.cli.shell import Shell
from dashboard.cli.signals import Interrupted, interruptible
from dashboard.cli.text import plural
from hive_errors import FileUnusable, UsageWrong

if TYPE_CHECKING:
    from agents.hive import Hive
    from agents.run import Run
    from dashboard.views import RunView
    from hive_bus.budget import Budget

Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", metavar="DIR", help="The directory that work is done in.", file_okay=False)
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", envvar="HIVE_MODEL", help="claude-..., or scripted:FILE with answers."),
]
ScriptFile = Annotated[
    Path | None,
    typer.Option("--script", metavar="FILE", help="Answer from this file: short for --model scripted:FILE."),
]


@command(
    "run",
    examples=(
        "run examples/hello.yaml",
        "run examples/ci.yaml --workspace . --approve all",
        "run 'Make the tests pass' --model claude-sonnet-5-5",
        "run ci.yaml --id nightly-0412 --if-exists return",
        "run ci.yaml --detach    # a `hive up` does it",
    ),
)
async def run(
    shell: Shell,
    *,
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|GOAL", help="A workflow file (ends in .yaml or .yml, or holds a /), else a goal."),
    ],
    workspace: Workspace = Path(),
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Name the run, so that starting it again is safe.")
    ] = None,
    if_exists: Annotated[
        str,
        typer.Option(
            "--if-exists", metavar="error|return", help="When a run of that id exists: fail, or go on with it."
        ),
    ] = "error",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Only ask for it: a `hive up` does the work.")] = False,
    approve: Annotated[
        str,
        typer.Option(
            "--approve", metavar="ask|all|none", help="Who answers approvals: a person, or always yes, or no."
        ),
    ] = "ask",
    model: ModelName = None,
    script: ScriptFile = None,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Start from a snapshot of uncommitted changes.")
    ] = False,
    max_parallel: Annotated[
        int | None, typer.Option("--max-parallel", metavar="N", min=1, help="Steps side by side [8].")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="KIND=AMOUNT,...", help="What it may use: usd=2,calls=50,tokens=200k,time=10m."
        ),
    ] = None,
    meta: Annotated[
        list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Kept with the run; may be repeated.")
    ] = None,
) -> int:
    """Start a run, do its work here, and show it until it ends.

    Ctrl-C stops this process, not the run: `hive up` goes on with it.
    """
    from agents.hive import Hive
    from hive_bus import tune_process

    tune_process()
    options = {
        "id": run_id,
        "if_exists": one_of("--if-exists", if_exists, "error", "return"),
        "approve": one_of("--approve", approve, "ask", "all", "none"),
        "metadata": _metadata(meta or []),
        "allow_dirty": allow_dirty,
        "max_parallel": max_parallel,
        "budget": _budget(budget),
    }
    if not what.strip():
        raise UsageWrong(name="GOAL", value=repr(what), reason="it is empty", remedy="hive run 'Make the tests pass'")
    url = shell.url(make=True)
    hive = Hive(
        url,
        workspace=workspace,
        model=model_name(model, script),
        serve=not detach,
        health_seconds=shell.settings.health_seconds,
        limits=shell.settings.limits,
        nats=shell.settings.nats,
        budget=shell.settings.budget,
    )
    if detach:
        async with hive:
            started = await hive.start(what, **options)
            detached(shell, started)
            return COMPLETED
    outcome = await host(shell, hive, lambda: hive.start(what, **options), approve=options["approve"])
    if outcome.view is not None:
        report(shell, outcome.view, resume=outcome.interrupted)
    return outcome.exit_code


def detached(shell: Shell, started: Run) -> None:
    """Say how to go on with a run that is done elsewhere."""
    if shell.json:
        shell.emit({"run": started.id, "status": "requested"})
        return
    shell.print(started.id)
    shell.say(
        f"it is done where a hive serves: {shell.command('up')}",
        f"follow it: {shell.command('trace', started.id, '--follow')}",
    )


class Outcome:
    """How hosting a run ended: the run as last seen, and whether a signal stopped the process."""

    def __init__(self, view: RunView | None, *, interrupted: bool) -> None:
        self.view, self.interrupted = view, interrupted

    @property
    def exit_code(self) -> int:
        """The exit code it means."""
        if self.interrupted or self.view is None:
            return INTERRUPTED
        if not self.view.ended:
            return WAITING
        return COMPLETED if self.view.status == "completed" else FAILED


async def host(
    shell: Shell, hive: Hive, start: Callable[[], Any], *, approve: Literal["ask", "all", "none"]
) -> Outcome:
    """Host the hive, start a run and watch it to its end, to a question nobody is there to answer, or to a signal."""
    from dashboard.cli.live import progress_of
    from dashboard.cli.watching import Watch

    watches: list[Watch] = []

    async def work() -> RunView:
        async with hive:
            shell.carry_signals(hive.bus)
            started = await start()
            with progress_of(shell) as progress:
                watches.append(Watch(shell, hive, started, progress, approve=approve))
                view = await watches[0].follow()
            if hive.serves - {started.id}:
                # Cut off, some of it would be in doubt, and a person be asked.
                shell.say("finishing what was begun here for other runs; Ctrl-C stops it")
                await drain()
            return view

    async def drain() -> bool:
        return await hive.drain(within=shell.settings.drain_seconds)

    try:
        return Outcome(await interruptible(work(), drain=drain), interrupted=False)
    except Interrupted:
        view = watches[0].view if watches else None
        return Outcome(view, interrupted=view is None or not view.ended)


def report(shell: Shell, view: RunView, *, resume: bool = False) -> None:
    """How a run stands, and what to do next."""
    from dashboard.cli.budget import how_to_raise
    from dashboard.cli.tree import summary

    if shell.json:
        shell.emit(view.as_dict())
    elif not resume:
        shell.print(*summary(view, width=shell.width))
    if resume:
        again = shell.command("up")
        shell.say(
            f"stopped here; run {view.id} is kept and goes on where a hive serves",
            f"try: {again}    or: {shell.command('trace', view.id)}",
        )
        return
    for question in view.questions:
        shell.say(
            f"{question.task_id or 'the run'} waits for approval: {question.question}",
            f"try: {shell.command('approve', view.id, *filter(None, [question.task_id]))}    or: "
            f"{shell.command('deny', view.id, *filter(None, [question.task_id]))}    then: {shell.command('up')}",
        )
    if view.over_budget:
        shell.say(
            f"paused: {view.over_budget}",
            f"try: {how_to_raise(shell, view.id, view.budget)}    then: {shell.command('up')}",
        )
    if view.merge_command:
        shell.say(f"the result is at branch {view.branch}; to take it: {view.merge_command}")
    if view.ended:
        shell.say(f"next: {shell.command('trace', view.id)}")


@command("up", examples=("up", "up --workspace ~/src/project", "up --db /srv/hive.db --verbose", "up --nats embedded"))
async def up(
    shell: Shell,
    *,
    workspace: Workspace = Path(),
    model: ModelName = None,
    script: ScriptFile = None,
    nats: Annotated[
        str | None,
        typer.Option(
            "--nats",
            metavar="URL|embedded",
            help="Mirror the log to this NATS server; embedded: to one of this directory's own, for development.",
        ),
    ] = None,
) -> int:
    """Host brains and hands until stopped.

    Runs that were started anywhere on this database go on here. As many as you like may serve one database; they share the work.
    """
    from agents.hive import Hive
    from dashboard.cli.mirror import server_of
    from hive_bus import tune_process

    tune_process()
    url = shell.url(make=True)
    hive = Hive(
        url,
        workspace=workspace,
        model=model_name(model, script),
        health_seconds=shell.settings.health_seconds,
        limits=shell.settings.limits,
        budget=shell.settings.budget,
    )

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            hive.nats = server = await stack.enter_async_context(server_of(shell, nats))
            await stack.enter_async_context(hive)
            if server is not None:
                from hive_bus.mirror.relay import Relay

                shell.carry_signals(hive.bus, server)
                _ = hive.bus.spawn(Relay(hive.bus, server).serve(), name="hive-bus relay")
            open_items = len({item.correlation_id for item in await hive.bus.store.work.items()})
            if shell.json:
                shell.emit({"serving": shell.place, "runs_open": open_items})
            else:
                work = f"{plural(open_items, 'run')} with open work; " if open_items else ""
                shell.say(f"serving {shell.place}", f"{work}Ctrl-C stops this process, not the runs")
            await hive.serve()

    return await until_stopped(shell, serve(), hive.drain)


async def until_stopped(shell: Shell, serving: Coroutine[Any, Any, None], drain: Callable[..., Awaitable[bool]]) -> int:
    """Serve until a signal: SIGTERM finishes what runs, for as long as the settings allow; Ctrl-C stops."""
    within = shell.settings.drain_seconds

    async def finish() -> bool:
        shell.say(f"finishing what runs, {within:g} s at most; a second signal stops at once")
        return await drain(within=within)

    try:
        await interruptible(serving, drain=finish)
    except Interrupted as stopped:
        if stopped.signum == signal.SIGINT:
            shell.say("stopped")
            return INTERRUPTED
        if not stopped.drained:
            shell.say("stopped; what ran is given back")
            return COMPLETED
    shell.say("stopped; nothing was left to do")
    return COMPLETED


def model_name(model: str | None, script: Path | None) -> str:
    """The model that the options mean. Raises :class:`FileUnusable`, :class:`UsageWrong`."""
    if script is None:
        name = model or ""
        # The process that opens it may run elsewhere.
        return f"scripted:{Path(name[9:]).resolve()}" if name.startswith("scripted:") else name
    if not script.is_file():
        raise FileUnusable(path=str(script), reason="there is no such file", remedy="name the file of answers")
    if model not in {None, "", "scripted"} and not str(model).startswith("scripted"):
        raise UsageWrong(
            name="--model", value=str(model), reason="--script answers in its place", remedy="leave one of the two out"
        )
    return f"scripted:{script.resolve()}"


def _budget(text: str | None) -> Budget | None:
    from hive_bus.budget import parse_budget

    if text is None:
        return None
    budget, without = parse_budget(text)
    if without:
        reason, remedy = "a run begins with limits or without", "leave the kind out"
        raise UsageWrong(name="--budget", value=text, reason=reason, remedy=remedy)
    return budget


def one_of(name: str, value: str, *words: str) -> Any:
    """The option's value if it is one of these words. Raises :class:`UsageWrong`."""
    if value not in words:
        raise UsageWrong(name=name, value=value, reason="it is none of its words", remedy=f"one of: {', '.join(words)}")
    return value


def _metadata(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value that is JSON is kept as such."""
    metadata: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageWrong(name="--meta", value=pair, reason="it is no pair", remedy="write --meta key=value")
        try:
            metadata[key] = json.loads(value)
        except ValueError:
            metadata[key] = value
    return metadata
