"""The real console script in real processes: on a pipe, on a pseudo-terminal, and what a terminal would then show."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forks import forks
from tests.support.patience import WITHIN

HIVE = str(Path(sys.executable).with_name("hive"))
_CONTROL = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-z])|([\r\n\b])|([^\x1b\r\n\b]+)")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        """Its output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Console:
    """Runs `hive` in one directory, with an environment of its own; without a ``database`` it is the directory's file."""

    directory: Path
    database: str = ""

    @property
    def url(self) -> str:
        """The address of its database."""
        return self.database or f"sqlite:///{self.directory}/.hive/hive.db"

    @property
    def environment(self) -> dict[str, str]:
        """`hive` on the path, no colours, no settings of whoever runs the tests, and a time zone that is the same everywhere."""
        # To measure a command takes as long as to start it, and on a server it runs what is measured on a file.
        unwanted = ("HIVE_", "ANTHROPIC_", "COVERAGE_") if self.database else ("HIVE_", "ANTHROPIC_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        path = f"{Path(HIVE).parent}{os.pathsep}{kept['PATH']}"
        setting = {"HIVE_DB": self.database} if self.database else {}
        return kept | setting | {"PATH": path, "NO_COLOR": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8", "TERM": "xterm"}

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """Run a command on pipes and wait for its end; with an environment of its own it is started as a shell starts it."""
        if env is None:
            fork = forks(measured=any(name.startswith("COVERAGE_") for name in self.environment))
            done = fork.run([HIVE, *words], self.directory, self.environment, within=WITHIN)
        else:
            done = subprocess.run(
                [HIVE, *words],
                cwd=self.directory,
                env=self.environment | dict(env),
                input="",
                capture_output=True,
                text=True,
                timeout=WITHIN,
                check=False,
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and leave it running; its standard error is a pipe to read from."""
        return subprocess.Popen(
            [HIVE, *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminal(
        self, *words: str, columns: int = 100, say: Callable[[str], str | None] = lambda _: None
    ) -> tuple[int, str]:
        """Run a command on a pseudo-terminal; ``say`` is asked for input with what was written so far.

        Returns the exit code and everything that was written, with its control sequences.
        """
        return on_terminal([HIVE, *words], self.directory, self.environment, columns=columns, say=say)


def on_terminal(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    columns: int,
    say: Callable[[str], str | None] = lambda _: None,
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=dict(environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_owned,  # noqa: PLW1509 - Ctrl-C is a signal only to who owns the terminal, and only a child can take it
    )
    os.close(theirs)
    written = b""
    try:
        while select.select([ours], [], [], WITHIN)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError as problem:
                # Linux says so when the other end is closed.
                if problem.errno == errno.EIO:
                    break
                raise
            if not piece:
                break
            written += piece
            answer = say(written.decode(errors="replace"))
            if answer is not None:
                os.write(ours, answer.encode())
        return process.wait(timeout=WITHIN), written.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _owned() -> None:
    """Make the terminal on standard input the one that this session answers to."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def screen(written: str) -> str:
    """What stands on a terminal after it was sent this: lines, with what was drawn over gone."""
    rows: list[str] = [""]
    row = column = 0
    for control in _CONTROL.finditer(written):
        count, word, single, text = control.groups()
        if text is not None:
            line = rows[row].ljust(column)
            rows[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif single == "\r":
            column = 0
        elif single == "\n":
            row += 1
            if row == len(rows):
                rows.append("")
        elif single == "\b":
            column = max(column - 1, 0)
        elif word == "A":
            row = max(row - int(count or 1), 0)
        elif word == "K":
            rows[row] = "" if count == "2" else rows[row][:column]
    return "\n".join(line.rstrip() for line in rows).strip("\n") + "\n"
