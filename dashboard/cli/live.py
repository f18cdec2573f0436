"""Progress of a run on standard error: a line for each thing that happened, and on a terminal what happens right now."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from dashboard.cli.telling import line_of
from dashboard.cli.text import Line, cut, dollars, duration, plural, sign

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dashboard.cli.shell import Shell
    from dashboard.views import RunView, TaskView
    from hive_bus import Record

_MOST: Final = 12
_REFRESH: Final = 0.1


class Progress(Protocol):
    """Shows a run while it goes on."""

    def show(self, record: Record, run: RunView) -> None:
        """Something happened."""
        ...

    def pause(self) -> None:
        """Stop drawing: somebody is asked."""
        ...

    def resume(self) -> None:
        """Draw again."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def progress_of(shell: Shell) -> Progress:
    """Progress as it suits standard error: drawn on a terminal, plain lines on a pipe."""
    return Drawn(shell) if shell.live else Lines(shell)


class Lines:
    """A plain line for each thing that happened."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def show(self, record: Record, run: RunView) -> None:
        """Write its line, if it is worth one."""
        line = line_of(record, run, width=160)
        if line is not None:
            self._shell.say(line)

    def pause(self) -> None:
        """Nothing is drawn."""

    def resume(self) -> None:
        """Nothing is drawn."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class Drawn:
    """The same lines above, and below them what works right now, drawn over itself and gone at the end."""

    def __init__(self, shell: Shell) -> None:
        from rich.live import Live

        self._shell = shell
        self._run: RunView | None = None
        self._live = Live(
            console=shell.err, refresh_per_second=1 / _REFRESH, transient=True, get_renderable=self._drawing
        )

    def show(self, record: Record, run: RunView) -> None:
        """Write its line above what is drawn."""
        self._run = run
        line = line_of(record, run, width=self._shell.err.width)
        if line is not None:
            from rich.text import Text

            # The thread that draws takes the same lock: a line between its halves would leave an old drawing on the screen.
            with self._live._lock:
                self._live.console.print(Text.assemble(*line))

    def pause(self) -> None:
        """Take the drawing away."""
        self._live.stop()

    def resume(self) -> None:
        """Draw again."""
        self._live.start()

    def _drawing(self) -> RenderableType:
        from rich.text import Text

        lines = working(self._run, width=self._shell.err.width, now=int(time.time() * 1_000_000))
        return Text("\n").join(Text.assemble(*line) for line in fitting(lines, self._shell.err.height))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def fitting(lines: list[Line], height: int) -> list[Line]:
    """As many of the lines as a screen holds; what is left out is counted."""
    room = max(height - 2, 3)
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], [(f"... {len(lines) - room + 1} more lines", "dim")]]


def working(run: RunView | None, *, width: int, now: int) -> list[Line]:
    """What a run does right now: a line for it, one for each task that somebody works on."""
    if run is None:
        return []
    mark, style = sign(run.status)
    parts = [duration(max(now - run.requested_at, 0) / 1_000_000)]
    if run.tasks:
        parts.append(f"{run.count('completed', 'failed', 'skipped', 'cancelled')} of {plural(len(run.tasks), 'task')}")
    if run.cost.calls:
        parts.append(dollars(run.cost))
    lines: list[Line] = [[(f"{mark} {run.status} ", style), ("  ".join(parts), "dim")]]
    active = [task for task in run.tasks if task.status in ("working", "reviewing", "merging", "queued", "waiting")]
    lines.extend(_task_line(task, width=width, now=now) for task in active[:_MOST])
    if len(active) > _MOST:
        lines.append([(f"  and {plural(len(active) - _MOST, 'more task')}", "dim")])
    return lines


def _task_line(task: TaskView, *, width: int, now: int) -> Line:
    mark, style = sign(task.status)
    started = task.started_at or task.ready_at or now
    text = f"{task.status}  {duration(max(now - started, 0) / 1_000_000)}"
    return [(f"  {mark} {task.id}", style), (f"  {text}", ""), (f"  {cut(task.activity, max(width - 40, 20))}", "dim")]
