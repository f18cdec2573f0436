"""What can go wrong on floor 5: the command line and what it is pointed at."""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError


@dataclass(eq=False, kw_only=True)
class CommandError(HiveError):
    """A command cannot do what it was asked."""

    code = "HIVE-CLI-000"
    hint = "`hive --help` lists the commands, `hive COMMAND --help` explains one"


@dataclass(eq=False, kw_only=True)
class NoHiveHere(CommandError):
    """There is no database where the command looks for one."""

    code = "HIVE-CLI-001"
    sentence = "no hive here: there is no file {path}"
    hint = "`hive demo` or `hive run` makes one; --db, HIVE_DB or hive.yaml name another"

    path: str


@dataclass(eq=False, kw_only=True)
class UsageWrong(CommandError):
    """An argument or option of a command has no meaning there."""

    code = "HIVE-CLI-002"
    sentence = "{name} = {value}: {reason}"
    hint = "{remedy}"

    name: str
    value: str
    reason: str
    remedy: str = "`hive COMMAND --help` explains it"


@dataclass(eq=False, kw_only=True)
class FileUnusable(CommandError):
    """A file that a command was given cannot be used."""

    code = "HIVE-CLI-003"
    sentence = "{path}: {reason}"
    hint = "{remedy}"

    path: str
    reason: str
    remedy: str = "name a file that exists and that you may read"
