"""watch: follow a run that works elsewhere, with what is said while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.cli.answers import RunName
from dashboard.cli.command import command
from dashboard.cli.events import as_dict
from dashboard.cli.exits import COMPLETED, FAILED
from dashboard.cli.shell import Shell
from hive_errors import NotFound

if TYPE_CHECKING:
    from agents.run import Run
    from dashboard.cli.live import Progress
    from dashboard.views import RunView
    from hive_bus import Record
    from hive_bus.signals import Signal


@command("watch", examples=("watch", "watch 7k3m", "watch @ --json"))
async def watch(shell: Shell, run: RunName = "@") -> int:
    """Follow a run that works elsewhere, until it ends.

    The text of models, the output of commands and how far tools are come over NATS (`nats:` or HIVE_NATS, in all processes),
    while they are said; they are in no log. With --json each line is an `event` of the log or a `signal`.
    """
    from agents.run import Run
    from dashboard.cli.live import progress_of
    from dashboard.cli.running import report

    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        if not await bus.store.log.read_stream(f"{run_id}/run", limit=1):
            raise NotFound(kind="run", name=run, reason="that correlation id belongs to no run")
        if not shell.carry_signals(bus):
            shell.say(
                "what models and commands say stays in the process that runs them: no NATS server is named",
                "try: HIVE_NATS=nats://127.0.0.1:4222, in that process and in this one; or nats: in hive.yaml",
            )
        if shell.json:
            view = await _follow(Run(bus, run_id), _Json(shell))
        else:
            with progress_of(shell, spoken=True) as progress:
                view = await _follow(Run(bus, run_id), progress)
    if not shell.json:
        report(shell, view)
    return COMPLETED if view.status == "completed" else FAILED


async def _follow(run: Run, progress: Progress | _Json) -> RunView:
    from dashboard.cli.watching import hearing
    from dashboard.views import RunFold
    from hive_bus.tasks import together

    fold = RunFold()
    async with together() as tasks:
        hears = tasks.create_task(hearing(run.bus, run.id, progress.hear))
        async for record in run.events():
            fold.add(record)
            assert fold.view is not None
            progress.show(record, fold.view)
        hears.cancel()
    assert fold.view is not None, "a run has at least its request"
    return fold.view


class _Json:
    """Everything as JSON Lines."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def hear(self, signal: Signal) -> None:
        """Something is said by what is being done."""
        self._shell.emit({"signal": signal.model_dump()})

    def show(self, record: Record, _: RunView) -> None:
        """Something happened."""
        self._shell.emit({"event": as_dict(record)})
