"""db: upgrade, check, stats."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED
from dashboard.cli.shell import Shell
from dashboard.cli.text import columns, size


class Action(StrEnum):
    """What is done to the database."""

    UPGRADE = "upgrade"
    CHECK = "check"
    STATS = "stats"


@command("db", examples=("db stats", "db check", "db upgrade --db /srv/hive.db"))
def db(
    shell: Shell,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="upgrade|check|stats",
            help="Bring the schema up to date, let SQLite check the file, or count what is in it.",
        ),
    ],
) -> int | None:
    """Upgrade, check or measure the database.

    What its contents should be is checked by `hive audit`.
    """
    from hive_core_db import check, stats, upgrade

    match action:
        case Action.UPGRADE:
            done = upgrade(shell.url(make=True))
            if shell.json:
                shell.emit(asdict(done))
            elif done.before == done.after:
                shell.print(f"{done.url}: nothing to do, its schema is {done.after}")
            else:
                shell.print(f"{done.url}: {done.before or 'new'} -> {done.after}")
        case Action.CHECK:
            url = shell.url()
            findings = check(url)
            if shell.json:
                shell.emit_all({"finding": finding} for finding in findings)
            else:
                shell.print(*(findings or [f"{url}: sound; `{shell.command('audit')}` looks at its contents"]))
            return FAILED if findings else None
        case Action.STATS:
            found = stats(shell.url())
            if shell.json:
                shell.emit(asdict(found))
            else:
                facts = [
                    ("database", found.url),
                    ("log", f"{found.name}, id {found.log_id}, epoch {found.epoch}"),
                    ("schema", found.revision),
                    ("head", str(found.head)),
                    *((name.replace("_", " "), str(count)) for name, count in found.rows.items()),
                    ("file", size(found.file_size)),
                    ("write-ahead", size(found.wal_size)),
                ]
                shell.print(*columns(facts, width=shell.width, flexible=(1,)))
    return None
