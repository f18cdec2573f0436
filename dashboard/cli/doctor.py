"""doctor: is everything there that the hive needs, and is nothing in its way."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED
from dashboard.cli.health import Check, Level
from dashboard.cli.shell import Shell
from dashboard.cli.text import columns, plural, size
from hive_errors import HiveError

if TYPE_CHECKING:
    from dashboard.views import ProcessView

_SIGNS: dict[Level, tuple[str, str]] = {"ok": ("✓", "green"), "note": ("-", "yellow"), "problem": ("✗", "bold red")}
_LEAST_DISK = 500 * 1024 * 1024
_PACKAGES = ("hive_errors", "hive_core_db", "hive_bus", "agents", "dashboard")
_NEEDED = ("alembic", "orjson", "pydantic", "rich", "ruamel.yaml", "SQLAlchemy", "structlog", "typer")
_OPTIONAL = {"anthropic": "claude", "opentelemetry-sdk": "otel", "asyncpg": "postgres", "nats-py": "nats"}
_RESET_MENDED = (3, 51, 3)


@command(
    "doctor",
    examples=("doctor", "doctor --db /srv/hive.db --json", "doctor --db postgresql://hive@db.example.org/hive"),
)
def doctor(shell: Shell) -> int | None:
    """Look whether this machine has what the hive needs.

    Versions, git, SQLite or the PostgreSQL server, the database, free disk, a model's key, and a foreign package in the way.
    """
    checks = [*_python(), *_foreign(), *_programs(), *_sqlite(), *_database(shell), *_mirror(shell), *_model()]
    problems = sum(check.level == "problem" for check in checks)
    if shell.json:
        shell.emit_all(asdict(check) for check in checks)
    else:
        rows = [((_SIGNS[one.level][0], _SIGNS[one.level][1]), one.name, one.found) for one in checks]
        for line, check in zip(columns(rows, width=10_000, flexible=(2,)), checks, strict=True):
            shell.print(line)
            if check.remedy:
                shell.print([("     try: ", "bold"), (check.remedy, "")])
        shell.say(plural(problems, "problem") if problems else "all is well")
    return FAILED if problems else None


def _python() -> Iterator[Check]:
    version = platform.python_version()
    yield Check(
        name="hive",
        level="ok",
        found=f"{_version_of('hive-orchestrator') or 'from a checkout'}, Python {version}, {platform.system()} {platform.machine()}",
    )
    missing = [name for name in _NEEDED if _version_of(name) is None]
    if missing:
        yield Check(
            name="packages",
            level="problem",
            found=f"not installed: {', '.join(missing)}",
            remedy="install the distribution again: pip install hive-orchestrator",
        )
    else:
        yield Check(name="packages", level="ok", found=", ".join(f"{name} {_version_of(name)}" for name in _NEEDED))
    absent = [f"{extra} ({name})" for name, extra in _OPTIONAL.items() if _version_of(name) is None]
    if absent:
        yield Check(
            name="extras",
            level="note",
            found=f"not installed: {', '.join(absent)}",
            remedy="only what you use: pip install 'hive-orchestrator[claude]'",
        )


def _foreign() -> Iterator[Check]:
    """Whether every package of ours is ours: `agents` is a name that others use too."""
    home = Path(__file__).resolve().parents[2]
    foreign = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        places = (
            [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec is not None else []
        )
        if not places or places[0].parent != home:
            foreign.append(f"{name} is {places[0] if places else 'missing'}")
    if foreign:
        yield Check(
            name="imports",
            level="problem",
            found=f"another package is in the way: {'; '.join(foreign)}",
            remedy=f"remove it from PYTHONPATH or the environment ({sys.prefix}), or give the hive an environment of its own",
        )
    else:
        yield Check(name="imports", level="ok", found="all five packages are the hive's own")


def _programs() -> Iterator[Check]:
    import subprocess

    git = shutil.which("git")
    if git is None:
        yield Check(
            name="git",
            level="problem",
            found="not found",
            remedy="install git: goals and prompt steps work in worktrees (run and tool steps need none)",
        )
        return
    said = subprocess.run([git, "--version"], capture_output=True, text=True, check=False, timeout=10)
    yield Check(name="git", level="ok", found=said.stdout.strip() or git)


def _sqlite() -> Iterator[Check]:
    import sqlite3

    version = sqlite3.sqlite_version
    mended = sqlite3.sqlite_version_info >= _RESET_MENDED
    note = "" if mended else "; before 3.51.3 a passive checkpoint can race a commit, so the hive never makes one"
    yield Check(name="SQLite", level="ok", found=f"{version}{note}")


def _database(shell: Shell) -> Iterator[Check]:
    from hive_core_db.url import SqliteUrl, parse

    try:
        address = parse(shell.url(make=True))
    except HiveError as error:
        yield _unwell(error)
        return
    if isinstance(address, SqliteUrl):
        if not address.path.exists():
            found = f"{shell.place}: not there yet"
            yield Check(name="database", level="note", found=found, remedy=shell.command("demo"))
        else:
            yield _contents(shell)
        yield _disk(address.path.parent)
        return
    from dashboard.cli.doctor_server import server_checks
    from hive_core_db.admin.server import examine

    try:
        server = examine(address.url)
    except HiveError as error:
        yield _unwell(error)
        return
    yield from server_checks(server)
    if server.has_log:
        yield _contents(shell)
    else:
        found = f"{shell.place}: no log there yet; the first process makes one"
        yield Check(name="database", level="note", found=found, remedy=shell.command("db", "upgrade"))


def _contents(shell: Shell) -> Check:
    from hive_core_db import check, stats

    try:
        findings = check(shell.url()).findings
        facts = stats(shell.url())
    except HiveError as error:
        return _unwell(error)
    if findings:
        remedy = shell.command("db", "check")
        return Check(name="database", level="problem", found=f"{shell.place}: {findings[0]}", remedy=remedy)
    events = plural(facts.rows["events"], "event")
    return Check(name="database", level="ok", found=f"{shell.place}: schema {facts.revision}, {events}")


def _unwell(error: HiveError) -> Check:
    return Check(name="database", level="problem", found=error.message, remedy=error.advice)


def _mirror(shell: Shell) -> Iterator[Check]:
    """Whether the NATS server that the settings name can hold a mirror; nothing where none is named."""
    import asyncio

    try:
        settings = shell.settings.nats
        if settings is None:
            return
        from dashboard.views import live_tails
        from hive_bus.mirror.connection import connected

        async def version() -> str:
            async with connected(settings, name="hive doctor") as connection:
                await connection.ask("INFO")
                return connection.server_version

        found = f"{settings.url}: nats-server {asyncio.run(version())} with JetStream"
        yield Check(name="NATS", level="ok", found=found)
        if tails := live_tails(asyncio.run(_processes(shell))):
            yield Check(name="live tail", level="ok", found=tails)
    except HiveError as error:
        yield Check(name="NATS", level="problem", found=error.message, remedy=error.advice)


async def _processes(shell: Shell) -> list[ProcessView]:
    """The processes that live, as their leases say."""
    from dashboard.views import process_view
    from hive_core_db.engine import open_store

    try:
        url = shell.url()
    except HiveError:
        return []  # there is no database yet, and nobody
    async with await open_store(url) as store:
        return [process_view(lease) for lease in await store.leases.live()]


def _disk(place: Path) -> Check:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < _LEAST_DISK:
        found = f"{size(free)} free at {place}"
        return Check(name="disk", level="problem", found=found, remedy="make room: a full disk stops every append")
    return Check(name="disk", level="ok", found=f"{size(free)} free")


def _model() -> Iterator[Check]:
    if os.environ.get("ANTHROPIC_API_KEY", "").strip():
        yield Check(name="model key", level="ok", found="ANTHROPIC_API_KEY is set")
    else:
        yield Check(
            name="model key",
            level="note",
            found="ANTHROPIC_API_KEY is not set",
            remedy="export ANTHROPIC_API_KEY=... for Claude; the demo and scripted models need no key",
        )


def _version_of(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
