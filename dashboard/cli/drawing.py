"""A run's trace as lines, written once, or drawn over itself while it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from dashboard.cli.shell import Shell
from dashboard.cli.text import Line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dashboard.views import TraceView
    from hive_bus import Record

_PER_SECOND: Final = 8
_SAID: Final = 6
"""Lines of what is said that stand below a trace."""


class Shape(StrEnum):
    """How a trace is drawn."""

    TREE = "tree"
    TIMELINE = "timeline"
    LOG = "log"


def draw(shell: Shell, records: Sequence[Record], shape: Shape, *, now: int) -> None:
    """Write a run's trace as of ``now``, UTC microseconds."""
    from dashboard.views import trace_view

    view = trace_view(records, now=now)
    assert view is not None, "a correlation has at least one record"
    if shell.json:
        shell.emit(view.as_dict())
    else:
        shell.print(*_lines(view, shape, shell.width))


def _lines(view: TraceView, shape: Shape, width: int) -> list[Line]:
    from dashboard.cli.tree import timeline, tree

    return tree(view, width=width) if shape is Shape.TREE else timeline(view, width=width)


class Growing:
    """A trace on a terminal, as tall as the screen, gone at the end. ``now`` is asked for the time of each drawing.

    What ``underway`` hears stands below it while what says it is not done.
    """

    def __init__(self, shell: Shell, shape: Shape, *, now: Callable[[], int], drawn: bool = True) -> None:
        from rich.live import Live

        from hive_bus.underway import Underway

        self.records: list[Record] = []
        self.underway = Underway()
        self.drawn = drawn
        self._shell, self._shape, self._now = shell, shape, now
        self._live = Live(
            console=shell.out, refresh_per_second=_PER_SECOND, transient=True, get_renderable=self._drawing
        )

    def add(self, record: Record) -> None:
        """One more event happened."""
        self.records.append(record)
        self.underway.tell(record)

    def _drawing(self) -> RenderableType:
        from rich.text import Text

        from dashboard.cli.live import fitting, said
        from dashboard.views import trace_view

        view = trace_view(self.records.copy(), now=self._now()) if self.drawn else None
        if view is None:
            return Text()
        below = said(self.underway.doing, width=self._shell.width, named=True, most=_SAID)
        lines = fitting(_lines(view, self._shape, self._shell.width), self._shell.out.height - len(below))
        return Text("\n").join(Text.assemble(*line) for line in [*lines, *below])

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
