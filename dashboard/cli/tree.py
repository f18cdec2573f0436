"""A trace as a tree and as a timeline: lines of text from spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dashboard.cli.text import Cell, Line, columns, cut, dollars, duration, plural, sign, style_of, tokens
from dashboard.views import RunView, Segment, Span, TraceView

_WORTH_SHOWING: Final = 0.0005
"""Seconds below which a wait is not written down."""
_NAME: Final = 26
_NOTE: Final = 22
"""The least columns for what a span is called, and for what is to say of it."""
_GOOD: Final = frozenset({"completed", "approved", "granted", ""})
_BAR: Final[dict[str, tuple[str, str]]] = {"queued": ("░", "dim"), "working": ("█", "cyan"), "person": ("▒", "yellow")}


def headline(trace: TraceView) -> list[Line]:
    """What the run was, how it stands, and where its time went."""
    run, root = trace.run, trace.root
    first: Line = [("run ", ""), (run.id, "bold"), (f"  {cut(run.title, 60)}", "")]
    mark, style = sign(run.status)
    parts = [duration(root.duration)]
    for name, seconds in (("work", root.worked), ("waits", root.waited), ("people", root.asked)):
        if seconds >= _WORTH_SHOWING:
            parts.append(f"{name} {duration(seconds)}")
    if run.cost.calls:
        parts += [plural(run.cost.calls, "model call"), tokens(run.cost), dollars(run.cost)]
    lines: list[Line] = [first, [(f"{mark} {run.status}", style), (f"  {' · '.join(parts)}", "")]]
    if run.reason:
        lines.append([(f"  {run.reason}", style)])
    return lines


def tree(trace: TraceView, *, width: int) -> list[Line]:
    """Spans as a tree, with the time that each waited and worked, and its cost; ``*`` marks the critical path."""
    # Numbers take 33 columns, and a note that nobody can read is none.
    room = max(width - 33 - _NOTE, _NAME)
    rows = [_row(span, branch, room) for span, branch in _branches(shown(trace.root.children), "")]
    head = ("", "", "", "waited", "worked", "cost", "")
    lines = columns(rows, width=width, flexible=(6, 2), right=(3, 4, 5), head=head)
    return [*headline(trace), [], *lines, [], [("* the run's end had to wait for it", "dim")]]


def shown(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Leave out a plan that a file gave: nobody made it, and it took no time."""
    return tuple(span for span in spans if span.kind != "plan" or span.children or span.status != "completed")


def _branches(spans: Sequence[Span], before: str) -> Iterator[tuple[Span, str]]:
    for number, span in enumerate(spans):
        last = number == len(spans) - 1
        yield span, before + ("└─ " if last else "├─ ")
        yield from _branches(span.children, before + ("   " if last else "│  "))


def _row(span: Span, branch: str, room: int) -> Sequence[Cell]:
    return (
        ("*", "bold yellow") if span.critical else "",
        sign(span.status),
        (cut(f"{branch}{label(span)}", room), "bold" if span.kind == "task" else ""),
        _wait(span),
        duration(span.worked) if span.worked >= _WORTH_SHOWING else "",
        dollars(span.cost),
        (_note(span), "dim" if span.status in _GOOD else style_of(span.status)),
    )


def _wait(span: Span) -> Cell:
    if span.asked >= _WORTH_SHOWING:
        return (duration(span.asked + span.waited), "yellow")
    return (duration(span.waited), "dim") if span.waited >= _WORTH_SHOWING else ""


def _note(span: Span) -> str:
    """The state where it is not simply good, how often it was tried, who was waited for, and what was said."""
    parts = [] if span.status in _GOOD else [span.status]
    if span.attempts > 1:
        parts.append(f"{span.attempts} {'tries' if span.kind == 'task' else 'attempts'}")
    if span.asked >= _WORTH_SHOWING and span.kind != "approval":
        parts.append(f"{duration(span.asked)} for a person")
    state = ", ".join(parts)
    return f"{state}: {span.note}" if state and span.note else state or span.note


def label(span: Span) -> str:
    """What a span is called where its kind is not evident."""
    words = {"command": "$ ", "approval": "asks: "}
    return f"{words.get(span.kind, '')}{span.label}"


def timeline(trace: TraceView, *, width: int) -> list[Line]:
    """Spans as bars on one scale of time."""
    root = trace.root
    begin, total = root.begin, max(round(root.duration * 1_000_000), 1)
    spans = [(span, depth) for span, depth in _depths(shown(root.children), 0)]
    name = min(max((len(label(span)) + 2 * depth for span, depth in spans), default=0), width // 3)
    room = max(width - name - 14, 10)
    scale: Line = [(" " * (name + 4), ""), ("0", "dim"), (duration(root.duration).rjust(room - 1), "dim")]
    lines = [*headline(trace), [], scale]
    for span, depth in spans:
        bar = _bar(span.segments, begin, total, room)
        text = cut("  " * depth + label(span), name).ljust(name)
        mark, style = sign(span.status)
        lines.append(
            [
                ("*" if span.critical else " ", "bold yellow"),
                (f" {text} ", "bold" if span.kind == "task" else ""),
                (mark + " ", style),
                *bar,
                (f" {duration(span.duration)}", "dim"),
            ]
        )
    legend = "█ works  ░ waits  ▒ waits for a person  * the run's end had to wait for it"
    return [*lines, [], [(legend, "dim")]]


def _depths(spans: Sequence[Span], depth: int) -> Iterator[tuple[Span, int]]:
    for span in spans:
        yield span, depth
        yield from _depths(span.children, depth + 1)


def _bar(segments: Sequence[Segment], begin: int, total: int, room: int) -> Line:
    """Each column shows what most matters of the time it stands for: work before people before waiting."""
    order = {"queued": 1, "person": 2, "working": 3}
    columns_ = [""] * room
    for piece in segments:
        first = min((piece.begin - begin) * room // total, room - 1)
        last = min(max((piece.end - begin) * room // total, first), room - 1)
        for index in range(max(first, 0), last + 1):
            if order[piece.phase] > order.get(columns_[index], 0):
                columns_[index] = piece.phase
    return [(_BAR[phase][0], _BAR[phase][1]) if phase else (" ", "") for phase in columns_]


def summary(run: RunView, *, width: int) -> list[Line]:
    """How a run stands: a line for it and one for each task."""
    mark, style = sign(run.status)
    parts = [duration(run.seconds), plural(len(run.tasks), "task")] if run.tasks else [duration(run.seconds)]
    if run.cost.calls:
        parts += [plural(run.cost.calls, "model call"), dollars(run.cost)]
    lines: list[Line] = [
        [("run ", ""), (run.id, "bold"), (f" {mark} {run.status}", style), (f"  {' · '.join(parts)}", "")]
    ]
    rows = [
        (
            (f"  {sign(task.status)[0]} {task.id}", style_of(task.status)),
            (task.status + (f", {task.try_number} tries" if task.try_number > 1 else ""), style_of(task.status)),
            duration(task.seconds(run.last_at)),
            dollars(task.cost),
            (task.note, "dim"),
        )
        for task in run.tasks
    ]
    lines += columns(rows, width=width, flexible=(4,), right=(2, 3))
    if run.reason and not run.tasks:
        lines.append([(f"  {cut(run.reason, width - 2)}", style)])
    return lines


__all__ = ["headline", "label", "shown", "style_of", "summary", "timeline", "tree"]
