"""Text for people: durations, sizes, columns that fit, and the words that a run is told in."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.cli.telling import line_of
from dashboard.cli.text import (
    cells,
    columns,
    cut,
    dollars,
    duration,
    ending,
    last_line,
    plain,
    plural,
    shown,
    size,
    thousands,
)
from dashboard.cli.tree import summary, timeline, tree
from dashboard.views import Cost, RunFold, run_view, trace_view
from tests.support.story import a_drone, two_steps


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0012, "1.2 ms"),
        (0.32, "320 ms"),
        (4.123, "4.1 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """A duration has the unit that people would choose."""
    assert duration(seconds) == text


def test_money_and_tokens() -> None:
    """Nothing called costs nothing; a price that nobody knows is said to be unknown."""
    assert dollars(Cost()) == ""
    assert dollars(Cost(calls=2, dollars=Decimal("0.0610"))) == "$0.0610"
    assert dollars(Cost(calls=2, dollars=Decimal("0.00001"))) == "<$0.0001"
    assert dollars(Cost(calls=2, dollars=Decimal("0.5"), unpriced=1)) == "$0.5000+?"
    assert dollars(Cost(calls=1, unpriced=1)) == "$?"
    assert [thousands(number) for number in (950, 1234, 35_000, 1_100_000)] == ["950", "1.2k", "35k", "1.1M"]
    assert [size(number) for number in (12, 2048, 5 << 20)] == ["12 B", "2.0 KiB", "5.0 MiB"]
    assert [plural(number, "try", "tries") for number in (1, 2)] == ["1 try", "2 tries"]


@given(st.text(), st.integers(1, 40))
def test_cut_text_fits(text: str, width: int) -> None:
    """Whatever is in it, wide characters and control characters too, the text takes no more columns than it may."""
    shortened = cut(text, width)
    assert cells(shortened) <= width
    assert shortened.isprintable()


@given(st.text(), st.integers(1, 40))
def test_an_ending_fits(text: str, width: int) -> None:
    """The end of a text takes no more columns than it may, and is the end."""
    text = shown(text)
    end = ending(text, width)
    assert cells(end) <= max(width, 1)
    assert text.endswith(end.removeprefix("…"))


@given(st.text(st.sampled_from("\x1b[]?;0123456789mKJHPX\\\x07\x9b\x9c\r\n\t\bab\u202e\ud83d\0"), max_size=60))
def test_nothing_that_was_printed_moves_the_cursor(text: str) -> None:
    """Whatever a program prints, a line of it is shown as printable characters, without the rest of a control sequence."""
    assert shown(text).isprintable()
    assert last_line(text).isprintable()
    assert cut(text, 30).isprintable()


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07plain", "plain"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0;2;0\x1b\\after sixel", "after sixel"),
        ("10%\r20%\r", "20%"),
        ("one\r\ntwo\r\n", "two"),
        ("one\n  \n\x1b[K\n", "one"),
        ("begun \x1b[3", "begun"),
        ("a\x1b(Bb\x1b=c\x1bMd", "abcd"),
        ("tab\tand bell\x07", "tab and bell"),
        ("", ""),
    ],
)
def test_the_last_line_is_what_a_terminal_would_show(printed: str, line: str) -> None:
    """Colours, titles, links, pictures and cursor movements leave only what can be read; who draws over a line means its last state."""
    assert last_line(printed) == line


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=80), st.text(max_size=12)), min_size=1, max_size=6))
def test_columns_fit(rows: list[tuple[str, str, str]]) -> None:
    """Lines of columns are no wider than asked for, and every row has a line."""
    lines = columns(rows, width=60, flexible=(1, 0), head=("one", "two", "three"))
    assert len(lines) in {0, len(rows) + 1} or not any(any(row) for row in rows)
    assert all(cells(plain(line)) <= 60 for line in lines)


def test_empty_columns_are_left_out() -> None:
    """A column in which no row has anything is not shown, not even its head."""
    lines = columns([("a", "", "1"), ("b", "", "2")], width=40, flexible=(0,), head=("name", "cost", "n"))
    assert [plain(line).rstrip() for line in lines] == ["name  n", "a     1", "b     2"]


def test_a_run_is_told_in_lines() -> None:
    """What happened in a drone's task, each thing on a line, and nothing of what is only machinery."""
    fold, told = RunFold(), []
    for record in a_drone().records:
        fold.add(record)
        assert fold.view is not None
        line = line_of(record, fold.view, width=100)
        if line is not None:
            told.append(plain(line))
    assert [" ".join(line.split()) for line in told] == [
        "0.0 s run 7k3m9x2p4q: Mend it",
        "1.0 s fix planned: Mend",
        "10.0 s fix starts",
        "11.0 s run model attempt failed: overloaded",
        "14.0 s fix command ./check: exit code 1",
        "15.0 s fix reviewer: changes requested: look again",
        "20.0 s fix again: changes",
        "20.0 s fix starts, try 2",
        "21.0 s run model attempt failed: overloaded",
        "24.0 s fix command ./check: exit code 1",
        "25.0 s fix reviewer: approved: look again",
        "31.0 s fix ✓ completed: done",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_drawings_fit_any_width(width: int) -> None:
    """Tree, timeline and summary are no wider than the screen, at every moment of a run."""
    for story in (two_steps(), a_drone()):
        for length in range(1, len(story.records) + 1):
            view, run = trace_view(story.records[:length]), run_view(story.records[:length])
            assert view is not None
            assert run is not None
            lines = [*tree(view, width=width), *timeline(view, width=width), *summary(run, width=width)]
            # The legend and the line of totals are prose: a terminal may wrap them.
            drawn = [line for line in lines if "·" not in plain(line) and "works  " not in plain(line)]
            assert max(cells(plain(line)) for line in drawn) <= max(width, 64)


def test_a_timeline_shows_who_was_waited_for() -> None:
    """Work, waiting and waiting for a person look different."""
    view = trace_view(two_steps().records)
    assert view is not None
    ship = next(plain(line) for line in timeline(view, width=100) if " ship " in plain(line))
    assert "▒▒▒▒" in ship
    assert "██" in ship
