"""Text for people: durations, times, sizes, states with their signs, and columns that fit a width.

A line is a list of (text, style) pieces; ``shell`` writes them, in colour or plain. Nothing here knows where to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dashboard.views import Cost

_NARROWEST: Final = 8
# Control sequences of terminals (ECMA-48): with parameters, strings up to their end, short ones; also without their end.
_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*(?:[0-~]|$)"
)

Piece = tuple[str, str]
Line = list[Piece]
Cell = str | Piece

SIGNS: Final[dict[str, tuple[str, str]]] = {
    "completed": ("✓", "green"),
    "approved": ("✓", "green"),
    "granted": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "rejected": ("✗", "bold red"),
    "denied": ("✗", "red"),
    "expired": ("✗", "red"),
    "unknown": ("?", "bold yellow"),
    "changes requested": ("↺", "yellow"),
    "cancelled": ("⊘", "yellow"),
    "interrupted": ("⊘", "yellow"),
    "skipped": ("-", "dim"),
    "left": ("⊘", "dim"),
    "pending": ("·", "dim"),
    "queued": ("◌", "dim"),
    "requested": ("◌", "dim"),
    "planning": ("●", "cyan"),
    "running": ("●", "cyan"),
    "working": ("●", "cyan"),
    "reviewing": ("●", "magenta"),
    "merging": ("●", "cyan"),
    "paused": ("‖", "yellow"),
    "waiting": ("?", "bold yellow"),
}


def sign(status: str) -> Piece:
    """The sign and style of a state; states are always written in words beside it."""
    return SIGNS.get(status, (" ", ""))


def style_of(status: str) -> str:
    """The style of a state."""
    return sign(status)[1]


def plain(line: Line | str) -> str:
    """A line without its styles."""
    return line if isinstance(line, str) else "".join(text for text, _ in line)


def duration(seconds: float | None) -> str:
    """``1.2 ms``, ``320 ms``, ``4.1 s``, ``3 min 05 s``, ``2 h 10 min``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def clock(microseconds: int) -> str:
    """The local time of day, to the millisecond."""
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def moment(microseconds: int) -> str:
    """The local date and time, to the second."""
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def zoned(microseconds: int) -> str:
    """The local date and time, to the millisecond, and the zone that makes it local."""
    local = datetime.fromtimestamp(microseconds / 1_000_000, UTC).astimezone()
    return f"{local:%Y-%m-%d} {clock(microseconds)} {local:%Z}"


def dollars(cost: Cost) -> str:
    """What model calls cost; ``?`` for those whose price nobody knows, empty without any call."""
    if not (cost.calls or cost.dollars or cost.unpriced):
        return ""
    if cost.unpriced and cost.unpriced >= cost.calls and not cost.dollars:
        return "$?"
    amount = "<$0.0001" if 0 < cost.dollars < 0.0001 else f"${cost.dollars:.4f}"
    return amount + ("+?" if cost.unpriced else "")


def tokens(cost: Cost) -> str:
    """``1.2k in, 310 out``; empty without any call."""
    return f"{thousands(cost.tokens_in)} in, {thousands(cost.output_tokens)} out" if cost.calls else ""


def thousands(number: int) -> str:
    """A count in few characters: 950, 1.2k, 35k, 1.1M."""
    if number < 1000:
        return str(number)
    if number < 1_000_000:
        return f"{number / 1000:.1f}k" if number < 10_000 else f"{number / 1000:.0f}k"
    return f"{number / 1_000_000:.1f}M"


def size(number: int) -> str:
    """Bytes as people read them."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(number)


def plural(number: int, word: str, words: str = "") -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number} {word if number == 1 else words or word + 's'}"


def cells(text: str) -> int:
    """How many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns, with an ellipsis where something is left out."""
    text = _printable(text)
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _width(character)
        if used > width - 1:
            break
        kept += character
    return kept.rstrip() + "…" if width > 0 else ""


def ending(text: str, width: int) -> str:
    """The end of the text in at most ``width`` columns, with an ellipsis where something is left out before it."""
    if cells(text) <= width:
        return text
    kept, used = len(text), 1
    while kept and used + _width(text[kept - 1]) <= width:
        kept -= 1
        used += _width(text[kept])
    return "…" + text[kept:].lstrip() if width > 0 else ""


def shown(text: str) -> str:
    """A line that a program printed, without what would move a terminal's cursor or change its colours."""
    # Whoever draws over a line means its last state.
    last = next((plain for part in reversed(text.split("\r")) if (plain := _printable(part)).strip()), "")
    return last.rstrip()


def last_line(text: str) -> str:
    """The last line of a text that says anything, as ``shown``."""
    return next((line for part in reversed(text.split("\n")) if (line := shown(part)).strip()), "").strip()


def _printable(text: str) -> str:
    """Without what a terminal would take for a command; other characters that it cannot show become spaces."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in _SEQUENCE.sub("", text))


def columns(
    rows: Sequence[Sequence[Cell]],
    *,
    width: int,
    flexible: Sequence[int],
    right: Sequence[int] = (),
    head: Sequence[str] = (),
) -> list[Line]:
    """Rows as aligned lines no wider than ``width``.

    The ``flexible`` columns give way, the first one first; a column with less than eight places left is left out.
    ``right`` ones align right.
    """
    table: list[list[Piece]] = [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    if head and table:
        table.insert(0, [(word, "dim") for word in head])
    if not table:
        return []
    # A column with nothing but its head in it is left out.
    filled = [any(row[index][0] for row in table[bool(head) :]) for index in range(len(table[0]))]
    widths = [max(cells(row[index][0]) for row in table) if some else 0 for index, some in enumerate(filled)]
    for index in flexible:
        over = sum(wide + 2 for wide in widths if wide) - 2 - width
        if over > 0:
            left = widths[index] - over
            widths[index] = left if left >= _NARROWEST else 0 if index != flexible[-1] else _NARROWEST
    used = [index for index, wide in enumerate(widths) if wide]
    lines = []
    for row in table:
        line: Line = []
        for index in used:
            text, style = row[index]
            text = cut(text, widths[index])
            gap = " " * (widths[index] - cells(text))
            last = index == used[-1]
            padded = gap + text if index in right else text + ("" if last else gap)
            line.append((padded, style))
            if not last:
                line.append(("  ", ""))
        lines.append(line)
    return lines
