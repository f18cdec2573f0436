"""Progress of a run on standard error: a line for each thing that happened, and on a terminal what happens right now.

What is said while it happens (``hive_bus.signals``) stands there only until it is replaced by what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from dashboard.cli.telling import line_of
from dashboard.cli.text import Line, cut, dollars, duration, ending, last_line, plural, shown, sign

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dashboard.cli.shell import Shell
    from dashboard.views import RunView, TaskView
    from hive_bus import Record
    from hive_bus.signals import Signal
    from hive_bus.underway import Doing, Underway

_MOST: Final = 12
_REFRESH: Final = 0.1
_SAID: Final = 2
"""Lines of what is said that stand below a step."""
_LONGEST: Final = 4096


class Progress(Protocol):
    """Shows a run while it goes on; ``hears`` says whether signals are of any use to it."""

    @property
    def hears(self) -> bool: ...

    def hear(self, signal: Signal) -> None:
        """Something is said by what is being done."""
        ...

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


def progress_of(shell: Shell, *, spoken: bool = False) -> Progress:
    """Progress as it suits standard error: drawn on a terminal; plain lines on a pipe, what is said among them if ``spoken``."""
    return Drawn(shell) if shell.live else Lines(shell, spoken=spoken)


class Lines:
    """A plain line for each thing that happened; and, if ``spoken``, for each whole line that is said."""

    def __init__(self, shell: Shell, *, spoken: bool) -> None:
        self._shell, self._spoken = shell, spoken
        self._underway = _underway()
        self._begun: dict[str, tuple[str, str]] = {}

    @property
    def hears(self) -> bool:
        """Whether anything said is written."""
        return self._spoken

    def hear(self, signal: Signal) -> None:
        """Write the lines that are whole now."""
        doing = self._underway.hear(signal)
        if doing is None:
            return
        _, before = self._begun.pop(signal.intent_id, ("", ""))
        if signal.kind == "progress":
            lines, rest = [_far(doing)], before
        else:
            # Its text begins anew where something was missed, and what was begun before will never be whole.
            anew = doing.text == signal.text
            *lines, rest = ((("" if doing.whole else "…") if anew else before) + signal.text).split("\n")
        if rest:
            self._begun[signal.intent_id] = (doing.task, rest[-_LONGEST:])
        self._say(doing.task, lines)

    def _say(self, task: str, lines: Sequence[str]) -> None:
        for line in filter(None, map(shown, lines)):
            self._shell.say(f"{'':11}{task or 'run':<12}  ┆ {line}")

    def show(self, record: Record, run: RunView) -> None:
        """Write its line, if it is worth one."""
        self._underway.tell(record)
        cause = record.causation_id
        if cause in self._begun and cause not in self._underway:
            task, rest = self._begun.pop(cause)
            self._say(task, [rest])
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
        self._underway = _underway()
        self._live = Live(
            console=shell.err, refresh_per_second=1 / _REFRESH, transient=True, get_renderable=self._drawing
        )

    @property
    def hears(self) -> bool:
        """What is said is drawn."""
        return True

    def hear(self, signal: Signal) -> None:
        """Draw it next time."""
        self._underway.hear(signal)

    def show(self, record: Record, run: RunView) -> None:
        """Write its line above what is drawn."""
        self._run = run
        self._underway.tell(record)
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

        now = int(time.time() * 1_000_000)
        lines = working(self._run, width=self._shell.err.width, now=now, doing=self._underway.doing)
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


def working(run: RunView | None, *, width: int, now: int, doing: Sequence[Doing] = ()) -> list[Line]:
    """What a run does right now: a line for it, one for each task that somebody works on, and what they say below it."""
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
    known = {task.id for task in active[:_MOST]}
    lines.extend(said([one for one in doing if one.task not in known], width=width, indent="  "))
    for task in active[:_MOST]:
        lines.append(_task_line(task, width=width, now=now))
        lines.extend(said([one for one in doing if one.task == task.id], width=width, indent="    "))
    if len(active) > _MOST:
        lines.append([(f"  and {plural(len(active) - _MOST, 'more task')}", "dim")])
    return lines


def _task_line(task: TaskView, *, width: int, now: int) -> Line:
    mark, style = sign(task.status)
    started = task.started_at or task.ready_at or now
    text = f"{task.status}  {duration(max(now - started, 0) / 1_000_000)}"
    return [(f"  {mark} {task.id}", style), (f"  {text}", ""), (f"  {cut(task.activity, max(width - 40, 20))}", "dim")]


def said(doing: Sequence[Doing], *, width: int, indent: str = "", named: bool = False, most: int = _SAID) -> list[Line]:
    """What is said by what is being done, a dim line for each of the last ones; ``named``: with their task's name."""
    lines: list[Line] = []
    for one in reversed(doing):
        text = "  ".join(filter(None, (_far(one), last_line(one.text))))
        if text and len(lines) < most:
            name = f"{cut(one.task or 'run', 20):<12}  " if named else ""
            before = f"{indent}┆ {name}"
            lines.insert(0, [(before + ending(text, max(width - len(before) - 1, 20)), "dim")])
    return lines


def _far(doing: Doing) -> str:
    """How far it says it is."""
    percent = "" if doing.fraction is None else f"{doing.fraction:.0%}"
    return " ".join(filter(None, (percent, last_line(doing.progress))))


def _underway() -> Underway:
    from hive_bus.underway import Underway

    return Underway()
