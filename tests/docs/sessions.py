"""Sessions in documents: ``console`` blocks, what they expect, and how real output is compared with it.

A line that begins with ``$`` is a command, what follows is what it writes, standard output and error as a
terminal shows them. ``...`` alone stands for any lines, within a line for any text, ``[exit 3]`` for an exit code that is not 0. Ids,
times, durations and paths are those of the day when the page was written: both sides are made alike first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^```(?P<kind>console|yaml)(?: title=(?P<title>\S+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ALIKE = (
    (re.compile(r"sqlite:////\S*?\.db"), "DATABASE"),
    (re.compile(r"/[\w./-]*/(?=(?:\.hive|examples|\w+\.yaml))"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "DATE"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s|min \d\d s)(?=\W|$)"), "SECONDS"),
    (re.compile(r"SECONDS(?:[ \t]+SECONDS)+"), "SECONDS"),
    (re.compile(r"\b[0-9a-hjkmnp-tv-z]{10}\b"), "RUN"),
    (re.compile(r"\b\d+k(?= in\b)"), "NUMBER"),
    (re.compile(r"\bapproved by \S+"), "approved by SOMEBODY"),
    (re.compile(r"\b(?:Linux|Darwin)\b"), "SYSTEM"),
    (re.compile(r"[░▒█]+[░▒█ ]*"), "BAR "),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"^ ?\d+(?= TIME)", re.MULTILINE), "POSITION"),
    (re.compile(r'(?<="position": )\d+|(?<=order\.placed )\d+'), "POSITION"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a session, what it must write and the exit code it must have."""

    line: int
    command: str
    expected: str
    code: int


def files_of(page: Path) -> dict[str, str]:
    """The files that a page asks its reader to make."""
    return {block["title"]: block["body"] for block in _BLOCK.finditer(page.read_text()) if block["title"]}


def steps_of(page: Path) -> list[Step]:
    """Every command of a page, in order."""
    text = page.read_text()
    steps: list[Step] = []
    for block in _BLOCK.finditer(text):
        if block["kind"] == "console":
            first = text.count("\n", 0, block.start("body")) + 1
            steps += _steps(block["body"], first)
    return steps


def _steps(body: str, first: int) -> list[Step]:
    steps = []
    for part in re.finditer(r"^\$ (?P<command>.*\n)(?P<output>(?:(?!\$ ).*\n)*)", body, re.MULTILINE):
        output, code = part["output"], 0
        ended = re.search(r"^\[exit (\d+)\]\n", output, re.MULTILINE)
        if ended:
            code, output = int(ended[1]), output.replace(ended[0], "")
        line = first + body.count("\n", 0, part.start())
        steps.append(Step(line, part["command"].strip(), output, code))
    return steps


def alike(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    for pattern, word in _ALIKE:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def fits(expected: str, written: str) -> bool:
    """Whether an output is what the page says; ``...`` alone on a line stands for any lines."""
    return _fits(alike(expected), alike(written))


def _fits(expected: list[str], written: list[str]) -> bool:
    if not expected:
        return not written
    if expected[0] == "...":
        return any(_fits(expected[1:], written[start:]) for start in range(len(written) + 1))
    return bool(written) and _same(expected[0], written[0]) and _fits(expected[1:], written[1:])


def _same(expected: str, written: str) -> bool:
    """Whether two lines are alike; ``...`` within one stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), written) is not None
