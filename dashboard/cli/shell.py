"""What a command works with: the options that all commands have, standard output for data, standard error for the rest.

rich is loaded when the first styled line is written, the bus when a database is opened: `hive --help` needs neither.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.cli.text import Line, plain

if TYPE_CHECKING:
    from rich.console import Console

    from hive_bus import Bus, Settings
    from hive_bus.mirror.settings import NatsSettings
    from hive_core_db.url import PostgresUrl, SqliteUrl

PIPE_WIDTH = 100
"""How wide lines are made where nobody's terminal says."""


@dataclass(frozen=True)
class Shell:
    """The common options of a command, and where it writes.

    ``db`` is as given on the command line, None where it was not. ``json``: data as JSON, lists as JSON Lines.
    """

    db: str | None = None
    json: bool = False
    verbose: bool = False
    debug: bool = False

    @cached_property
    def out(self) -> Console:
        """Standard output, for what was asked for."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Standard error, for progress and advice."""
        return _console(stderr=True)

    @cached_property
    def settings(self) -> Settings:
        """The settings, with what was given on the command line. Raises :class:`SettingInvalid`."""
        from hive_bus.config import load_settings

        return load_settings({"db": self.db})

    @property
    def live(self) -> bool:
        """Whether progress may be drawn over itself."""
        return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"

    @property
    def asks(self) -> bool:
        """Whether somebody is there to be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.json

    @property
    def width(self) -> int:
        """The columns that lines on standard output may take."""
        return self.out.width if sys.stdout.isatty() else PIPE_WIDTH

    def print(self, *lines: Line | str) -> None:
        """Write lines of data for people."""
        for line in lines:
            _write(self.out, line, terminal=sys.stdout.isatty())

    def say(self, *lines: Line | str) -> None:
        """Write lines of progress or advice."""
        for line in lines:
            _write(self.err, line, terminal=sys.stderr.isatty())

    def emit(self, value: Mapping[str, Any]) -> None:
        """Write one JSON object on a line of its own."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def emit_all(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Write JSON Lines."""
        for value in values:
            self.emit(value)

    def command(self, *words: str) -> str:
        """A ``hive`` command that works when it is pasted here: with the database that was named on the command line."""
        given = ("--db", _shown(self.db)) if self.db else ()
        return " ".join([_program(), *(word if word == "@" else shlex.quote(word) for word in (*words, *given))])

    @asynccontextmanager
    async def bus(self, *, make: bool = False) -> AsyncIterator[Bus]:
        """The open bus. Unless ``make``, a database that is not there yet is :class:`NoHiveHere`."""
        from hive_bus import open_bus

        async with open_bus(self.url(make=make), source="hive", nats=self.settings.nats or "") as bus:
            yield bus

    def carry_signals(self, bus: Bus, server: NatsSettings | None = None) -> bool:
        """Let what is said while work is done go over NATS, there and back, where the settings name a server; whether they do."""
        server = self.settings.nats if server is None else server
        if server is None:
            return False
        from hive_bus.mirror.signals import NatsSignals

        _ = bus.spawn(NatsSignals(bus, server).serve(), name="hive-bus signals")
        return True

    def url(self, *, make: bool = False) -> str:
        """The address of the database to open it: the flag, else the settings'; `place` is the one to show.

        Raises :class:`NoHiveHere`, :class:`UnsupportedUrl`.
        """
        from hive_core_db.url import SqliteUrl
        from hive_errors import NoHiveHere

        address = self._address
        if not make and isinstance(address, SqliteUrl) and not address.path.exists():
            raise NoHiveHere(path=str(address.path))
        return address.url

    @property
    def place(self) -> str:
        """The address of the database for people: without its password."""
        return str(self._address)

    @cached_property
    def _address(self) -> SqliteUrl | PostgresUrl:
        from hive_bus.config import load_settings
        from hive_core_db.url import parse

        return parse(load_settings({"db": self.db}).db)


def _shown(url: str) -> str:
    """An address as it was given, but for a password."""
    from hive_core_db.url import parse
    from hive_errors import UnsupportedUrl

    try:
        return url if "@" not in url else str(parse(url))
    except UnsupportedUrl:
        return url


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _write(console: Console, line: Line | str, *, terminal: bool) -> None:
    if not terminal:
        # Plain and flushed: whoever reads the pipe sees each line when it happens.
        console.file.write(plain(line).rstrip() + "\n")
        console.file.flush()
        return
    if isinstance(line, str):
        console.print(line)
        return
    from rich.text import Text

    console.print(Text.assemble(*((part, style) for part, style in line)))


@cache
def _program() -> str:
    """How this program is called from here: by its name where the shell finds it, else by its path (`make demo`)."""
    me, found = Path(sys.argv[0]), shutil.which("hive")
    if me.name != "hive" or not me.is_file() or (found is not None and me.samefile(found)):
        return "hive"
    path, here = me.absolute(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
