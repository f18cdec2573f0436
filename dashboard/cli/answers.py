"""approve, deny, cancel, retry: what people tell a run."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id, its first letters, or @ for the last run.")]
TaskName = Annotated[str | None, typer.Argument(metavar="TASK", help="One task; without it, all that are meant.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who says so; your login by default.")]


@command("approve", examples=("approve @", "approve 7k3m ship --comment 'looked at the diff'"))
async def approve(
    shell: Shell,
    run: RunName = "@",
    task: TaskName = None,
    comment: Annotated[str, typer.Option("--comment", "-m", metavar="TEXT", help="Kept with the answer.")] = "",
    by: By = None,
) -> None:
    """Say yes to what a run asks. Without a RUN, the last one is meant."""
    await _answer(shell, "approve", run=run, task=task, comment=comment, by=by)


@command("deny", examples=("deny @ ship --comment 'not on a Friday'",))
async def deny(
    shell: Shell,
    run: RunName = "@",
    task: TaskName = None,
    comment: Annotated[str, typer.Option("--comment", "-m", metavar="TEXT", help="Kept with the answer.")] = "",
    by: By = None,
) -> None:
    """Say no to what a run asks: the step fails."""
    await _answer(shell, "deny", run=run, task=task, comment=comment, by=by)


@command("cancel", examples=("cancel @", "cancel 7k3m --reason 'wrong branch'"))
async def cancel(
    shell: Shell,
    run: RunName,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Kept with the run.")] = "",
    by: By = None,
) -> None:
    """Stop a run: nothing new starts, and what runs is asked to end."""
    from agents.hive import Hive

    async with shell.bus() as bus:
        cancelled = await Hive(bus=bus, serve=False).cancel(run, reason=reason, by=by or login())
        _confirm(shell, cancelled.id, "is asked to stop")


@command("retry", examples=("retry @", "retry 7k3m test"))
async def retry(
    shell: Shell,
    run: RunName,
    task: TaskName = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Kept with the task.")] = "",
    by: By = None,
) -> None:
    """Try failed tasks of a run again; a run that had ended goes on."""
    from agents.hive import Hive

    async with shell.bus() as bus:
        again = await Hive(bus=bus, serve=False).retry(run, task, reason=reason, by=by or login())
        _confirm(shell, again.id, "tries again")


async def _answer(shell: Shell, word: str, *, run: str, task: str | None, comment: str, by: str | None) -> None:
    from agents.hive import Hive

    async with shell.bus() as bus:
        hive = Hive(bus=bus, serve=False)
        run_id = await bus.resolve(run)
        before = await hive.waiting(run_id)
        answer = hive.approve if word == "approve" else hive.deny
        await answer(run_id, task, by=by or login(), comment=comment)
        open_still = {record.event_id for record in await hive.waiting(run_id)}
        answered = [record for record in before if record.event_id not in open_still]
    said = "approved" if word == "approve" else "denied"
    if shell.json:
        shell.emit_all({"run": run_id, "task_id": one.data.get("task_id"), "answer": said} for one in answered)
        return
    for record in answered:
        shell.print(f"{said}: {record.data.get('task_id') or run_id} ({record.data.get('question')})")
    shell.say(f"it goes on where a hive serves: {shell.command('up')}")


def _confirm(shell: Shell, run_id: str, what: str) -> None:
    if shell.json:
        shell.emit({"run": run_id, "status": what})
        return
    shell.print(f"run {run_id} {what}")
    shell.say(f"it does so where a hive serves: {shell.command('up')}")


def login() -> str:
    """Who gives an answer, unless somebody else is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
