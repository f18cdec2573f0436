"""What a page shows: its blocks of code, and sessions whose output is compared with what really comes.

A block that follows ``<!-- file: PATH -->`` is that file. A ``text`` block right behind a
program is its output. A ``console`` block is a session: lines with ``$ `` are commands, the
rest is what they print, on a pipe, with ``[exit 3]`` for a code that is not 0; ``...`` leaves
lines out; a command that ends in ``&`` serves the rest of the session.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import WITHIN

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_VARIES = (
    (r"sqlite:///\S+?(?=[;\s]|$)", "DATABASE"),
    (r"\b(?=\w*\d)[0-9a-hjkmnp-tv-z]{10}\b", "RUN"),
    (r"\$\d+\.\d+", "MONEY"),
    (r"\b\d+(\.\d+)? (ms|s|min \d+ s|min)\b", "TIME"),
    (r"\bby \w+", "by SOMEBODY"),
    (r"\b\d+k?\b", "N"),
    (r"^\s*\*? ", ""),  # whether the end had to wait for it may differ between steps side by side
    (r"(?<=.{40}).*…$", "…"),  # how much of a line fits depends on the width of its times
    (r"\s+", " "),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page; ``output`` is the text block right behind it."""

    language: str
    text: str
    file: str | None
    line: int
    output: str | None = None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    found: list[Block] = []
    end = 0
    for match in _BLOCK.finditer(text):
        block = Block(
            language=match["language"],
            text=match["text"],
            file=match["file"],
            line=text.count("\n", 0, match.start()) + 1,
        )
        if block.language == "text" and found and not text[end : match.start()].strip():
            last = found.pop()
            block = Block(language=last.language, text=last.text, file=last.file, line=last.line, output=block.text)
        found.append(block)
        end = match.end()
    return found


def environment() -> dict[str, str]:
    """What a reader's shell has: this `hive` first on the path, no setting of the hive, a fixed width."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HIVE_", "ANTHROPIC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}


def steady(text: str) -> list[str]:
    """The lines of a text without what differs from run to run, sorted: steps side by side take turns."""
    lines = []
    for line in text.splitlines():
        for pattern, word in () if line.startswith("[exit") else _VARIES:
            line = re.sub(pattern, word, line)  # noqa: PLW2901 - one substitution after the other
        if line.strip():
            lines.append(line.strip())
    return sorted(lines)


def differences(shown: str, real: str) -> list[str]:
    """What is shown and does not come (``-``), and what comes and is not shown (``+``)."""
    wanted, given = Counter(steady(shown)), Counter(steady(real))
    partly = wanted.pop("...", 0) > 0
    missing = [f"- {line}" for line in (wanted - given).elements()]
    return missing + ([] if partly else [f"+ {line}" for line in (given - wanted).elements()])


def commands(session: str) -> list[tuple[str, str]]:
    """The commands of a session, each with what is shown of its output."""
    parts = re.split(r"^\$ (.*)\n", session, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


async def play(session: str, directory: Path) -> list[tuple[str, str, str]]:
    """Run a session's commands in a directory: each with what is shown, and what really came."""
    played: list[tuple[str, str, str]] = []
    serving: list[tuple[str, str, asyncio.subprocess.Process]] = []
    try:
        for command, shown in commands(session):
            if command.endswith("&"):
                process = await _start(command.rstrip("& "), directory)
                serving.append((command, shown, process))
                continue
            real = await _output(command, directory)
            async with asyncio.timeout(WITHIN):
                while serving and differences(shown, real):
                    real = await _output(command, directory)
            played.append((command, shown, real))
    finally:
        for command, shown, process in serving:
            os.killpg(process.pid, signal.SIGINT)
            output, _ = await process.communicate()
            played.append((command, f"{shown}...\n", output.decode()))
    return played


async def _start(command: str, directory: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


async def _output(command: str, directory: Path) -> str:
    process = await _start(command, directory)
    output, _ = await process.communicate()
    return output.decode() + (f"[exit {process.returncode}]\n" if process.returncode else "")
