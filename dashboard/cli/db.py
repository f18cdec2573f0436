"""db: upgrade, check, stats, copy, backup, restore, epoch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, columns, size
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from hive_core_db.admin import Progress, Stats


class Action(StrEnum):
    """What is done to the database, and what it is to be told."""

    UPGRADE = "upgrade"
    CHECK = "check"
    STATS = "stats"
    COPY = "copy"
    BACKUP = "backup"
    RESTORE = "restore"
    EPOCH = "epoch"

    @property
    def words(self) -> tuple[str, ...]:
        """What follows the action on the command line."""
        return _WORDS.get(self, ())


_WORDS = {Action.COPY: ("SRC", "DST"), Action.BACKUP: ("FILE",), Action.RESTORE: ("FILE",)}


@command(
    "db",
    examples=(
        "db stats",
        "db check",
        "db upgrade --db /srv/hive.db",
        "db copy .hive/hive.db postgresql://hive@db.example.org/hive",
        "db backup ~/backups/monday.db",
        "db restore ~/backups/monday.db",
        "db epoch --reason 'the disk was put back to its snapshot of Monday'",
    ),
)
def db(
    shell: Shell,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="upgrade|check|stats|copy|backup|restore|epoch",
            help=(
                "Bring the schema up to date; look for damage; count what is there; copy SRC to the new or empty DST; write a "
                "SQLite database to FILE; put FILE back; begin a new epoch by hand."
            ),
        ),
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[SRC DST|FILE]", help="Addresses of a copy; the file of a backup.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why an epoch begins; kept in the log.")] = "",
) -> int | None:
    """Upgrade, check, measure, copy, back up or restore the database.

    What its contents should be is checked by `hive audit`. PostgreSQL has tools of its own for backups:
    docs/operations.md says which, and what the hive does after a restore.
    """
    given = words or []
    if len(given) != len(action.words):
        raise UsageWrong(
            name=" ".join(action.words) or "nothing",
            value=" ".join(given) or "nothing",
            reason=f"`db {action}` takes {' and '.join(action.words) or 'no more words'}",
            remedy=shell.command("db", str(action), *action.words),
        )
    code: int | None = _ACTIONS[action](shell, given, reason)
    return code


def _upgrade(shell: Shell, _words: list[str], _reason: str) -> None:
    from hive_core_db import upgrade

    done = upgrade(shell.url(make=True))
    if shell.json:
        shell.emit(asdict(done))
    elif done.before == done.after:
        shell.print(f"{done.url}: nothing to do, its schema is {done.after}")
    else:
        shell.print(f"{done.url}: {done.before or 'new'} -> {done.after}")


def _check(shell: Shell, _words: list[str], _reason: str) -> int | None:
    from hive_core_db import check

    found = check(shell.url())
    if shell.json:
        shell.emit(asdict(found))
    else:
        shell.print(*(found.findings or [f"{found.url}: sound; `{shell.command('audit')}` looks at its contents"]))
        shell.say(*(f"looked at {what}" for what in found.looked_at))
    return FAILED if found.findings else None


def _stats(shell: Shell, _words: list[str], _reason: str) -> None:
    from hive_core_db import stats

    found = stats(shell.url())
    if shell.json:
        shell.emit(asdict(found))
        return
    facts = [
        ("database", found.url),
        ("log", f"{found.name}, id {found.log_id}, epoch {found.epoch}"),
        ("schema", found.revision),
        ("head", str(found.head)),
        ("size", size(found.file_size)),
        *([("write-ahead", size(found.wal_size))] if found.wal_size else []),
    ]
    shell.print(*columns(facts, width=shell.width, flexible=(1,)))
    head = ("table", "rows", "size", "dead rows")
    shell.print(*columns(list(_tables(found)), width=shell.width, flexible=(0,), right=(1, 2, 3), head=head))
    indexes = [(name, size(bytes_)) for name, bytes_ in sorted(found.indexes.items(), key=lambda one: -one[1])]
    shell.print(*columns(indexes, width=shell.width, flexible=(0,), right=(1,), head=("index", "size")))


def _tables(found: Stats) -> Iterator[tuple[Cell, ...]]:
    for name, rows in found.rows.items():
        dead = found.dead.get(name, 0)
        yield name, str(rows), size(found.sizes[name]) if name in found.sizes else "", str(dead) if dead else ""


def _copy(shell: Shell, words: list[str], _reason: str) -> None:
    from hive_core_db import copy

    with _progress(shell) as progress:
        done = copy(*words, progress=progress)
    if shell.json:
        shell.emit(asdict(done))
        return
    shell.print(f"{done.source} -> {done.target}")
    rows = [(name, str(count)) for name, count in done.rows.items() if count]
    shell.print(*columns(rows, width=shell.width, flexible=(0,), right=(1,), head=("table", "rows")))
    shell.print(f"both sides have the digest {done.digest}")
    shell.say(f"a new epoch begins when it is first opened; look at it: hive audit --db {shlex.quote(done.target)}")


def _backup(shell: Shell, words: list[str], _reason: str) -> None:
    from hive_core_db import backup

    done = backup(shell.url(), Path(words[0]))
    if shell.json:
        shell.emit(asdict(done))
    else:
        shell.print(f"{done.file}: everything up to position {done.head}, {size(done.size)}")


def _restore(shell: Shell, words: list[str], _reason: str) -> None:
    from hive_core_db import restore

    done = restore(shell.url(make=True), Path(words[0]))
    if shell.json:
        shell.emit(asdict(done))
    else:
        shell.print(
            f"{done.url}: position {done.head} from {done.file}; epoch {done.epoch} begins at {done.first_position}"
        )


def _epoch(shell: Shell, _words: list[str], reason: str) -> None:
    from hive_core_db import begin_epoch

    if not reason:
        raise UsageWrong(
            name="--reason",
            value="nothing",
            reason="an epoch has a reason",
            remedy=shell.command("db", "epoch", "--reason", "TEXT"),
        )
    done = begin_epoch(shell.url(), reason=reason)
    if shell.json:
        shell.emit(asdict(done))
    else:
        shell.print(
            f"{done.url}: epoch {done.epoch} begins at {done.first_position}; processes of the one before are fenced"
        )


_ACTIONS: dict[Action, Any] = {
    Action.UPGRADE: _upgrade,
    Action.CHECK: _check,
    Action.STATS: _stats,
    Action.COPY: _copy,
    Action.BACKUP: _backup,
    Action.RESTORE: _restore,
    Action.EPOCH: _epoch,
}


@contextmanager
def _progress(shell: Shell) -> Iterator[Progress | None]:
    """A bar for each table on a terminal; nothing elsewhere."""
    if not shell.live:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    parts = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*parts, console=shell.err, transient=True) as bars:
        bar = bars.add_task("copy")
        yield lambda what, done, total: bars.update(bar, description=what, completed=done, total=total)
