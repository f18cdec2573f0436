"""mirror: how the copy of the log on NATS JetStream stands, whether it is equal, and to make it anew; and its part of audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED
from dashboard.cli.shell import Shell
from dashboard.cli.text import columns, plural
from hive_errors import HiveError, MirrorNotOurs, UsageWrong

if TYPE_CHECKING:
    from hive_bus.mirror.comparison import Comparison
    from hive_bus.mirror.connection import Connection
    from hive_bus.mirror.settings import NatsSettings
    from hive_bus.mirror.stream import Mirrored
    from hive_core_db.audit import Finding
    from hive_core_db.store import EventLog

EMBEDDED = "embedded"


class Action(StrEnum):
    """What is done about the mirror."""

    STATUS = "status"
    VERIFY = "verify"
    REBUILD = "rebuild"


@command("mirror", examples=("mirror status", "mirror verify --json", "mirror rebuild"))
async def mirror(
    shell: Shell,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="status|verify|rebuild",
            help="How far it is; compare it with the log, byte for byte; drop it, so that a relay publishes it again.",
        ),
    ] = Action.STATUS,
) -> int | None:
    """Look after the copy of the log on NATS.

    `hive up` relays where `nats:` or HIVE_NATS names a server. The database is the truth: a mirror may be dropped at any time.
    """
    from hive_bus.mirror.connection import connected
    from hive_bus.mirror.stream import mirrored

    settings = _settings(shell)
    async with shell.bus() as bus, connected(settings, name="hive mirror") as connection:
        log = bus.store.log
        known = mirrored(await log.meta(), await log.epochs())
        code: int | None = await _ACTIONS[action](shell, log, connection, known)
        return code


def _settings(shell: Shell) -> NatsSettings:
    settings = shell.settings.nats
    if settings is None:
        raise UsageWrong(
            name="nats",
            value="nothing",
            reason="no NATS server is named",
            remedy=f"HIVE_NATS=nats://127.0.0.1:4222 {shell.command('mirror', 'status')}    or: {shell.command('up', '--nats', EMBEDDED)}",
        )
    return settings


async def _status(shell: Shell, log: EventLog, connection: Connection, known: Mirrored) -> None:
    from hive_bus.mirror.stream import find, must_be_ours

    stream = await find(connection, known.names.stream)
    head = await log.head()
    if stream is not None:
        must_be_ours(stream, known)
    facts: dict[str, Any] = {
        "server": connection.url,
        "stream": known.names.stream,
        "there": stream is not None,
        "epoch": known.epoch.number,
        "head": head,
        "first": None if stream is None else stream.first,
        "mirrored": None if stream is None else stream.last,
        # An epoch begins above a jump; what was before it is not this stream's.
        "behind": max(0, head - (known.epoch.first_position - 1 if stream is None else stream.last)),
    }
    if shell.json:
        shell.emit(facts)
        return
    shell.print(*columns([(name, str(value)) for name, value in facts.items()], width=shell.width, flexible=(1,)))
    if stream is not None and stream.last > head:
        shell.say(f"the stream goes beyond the log; by what: {shell.command('mirror', 'verify')}")
    if stream is None:
        shell.say(f"a relay makes the stream: {shell.command('up')}")


async def _verify(shell: Shell, log: EventLog, connection: Connection, _known: Mirrored) -> int | None:
    from hive_bus.mirror.comparison import compare

    found = await compare(log, connection)
    if shell.json:
        shell.emit({**asdict(found), "equal": found.equal})
    elif found.equal:
        shell.print(f"{found.stream}: {plural(found.compared, 'position')} equal, {found.first} to {found.last}")
    else:
        shell.print(*(f"{one.position}: {one.kind}: {one.reason}" for one in found.differences))
        shell.say(
            f"{found.stream}: {plural(found.differing, 'position')} of {found.compared} not equal",
            f"try: {shell.command('mirror', 'rebuild')}",
        )
    return None if found.equal else FAILED


async def _rebuild(shell: Shell, _log: EventLog, connection: Connection, known: Mirrored) -> None:
    from hive_bus.mirror.stream import find, must_be_ours, remove

    stream = await find(connection, known.names.stream)
    if stream is not None:
        must_be_ours(stream, known)
        await remove(connection, stream.name)
    if shell.json:
        shell.emit({"stream": known.names.stream, "removed": stream is not None})
    else:
        shell.print(f"{known.names.stream}: {'removed' if stream is not None else 'was not there'}")
        shell.say(f"a relay publishes it again from position {known.epoch.first_position}: {shell.command('up')}")


_ACTIONS = {Action.STATUS: _status, Action.VERIFY: _verify, Action.REBUILD: _rebuild}


@asynccontextmanager
async def server_of(shell: Shell, given: str | None) -> AsyncIterator[NatsSettings | None]:
    """The server to relay to, by ``--nats`` or else the settings; with "embedded" one is started, and ended afterwards.

    Raises :class:`SettingInvalid`, :class:`MirrorServerMissing`, :class:`MirrorServerFailed`.
    """
    from hive_bus.config import load_settings

    if given != EMBEDDED:
        yield shell.settings.nats if given is None else load_settings({"db": shell.db, "nats": given}).nats
        return
    from hive_bus.mirror.embedded import FOLDER, embedded

    async with embedded(Path.cwd(), shell.url(make=True)) as server:
        shell.say(f"NATS for this directory: {server.url}, its data in {FOLDER}")
        yield server


def audited(shell: Shell) -> Iterator[Finding]:
    """What is wrong with the mirror; nothing where no server is named.

    A mirror that cannot be looked at is said, and no finding: the log is as sound without it.
    """
    import asyncio

    from hive_core_db.audit import Finding

    if shell.settings.nats is None:
        return
    try:
        found = asyncio.run(_compared(shell.url(), shell.settings.nats))
    except MirrorNotOurs as problem:
        subject, reason = f"stream {problem.stream}", problem.reason
        yield Finding(code="mirror-not-ours", subject=subject, what="whose it is", expected="this log's", actual=reason)
        return
    except HiveError as problem:
        shell.say([("the mirror was not compared: ", "yellow"), (problem.message, "")])
        shell.say([("try: ", "bold"), (problem.advice, "")])
        return
    for one in found.differences:
        yield Finding(
            code="mirror-differs",
            subject=f"stream {found.stream}",
            what=f"its message, {one.kind}",
            expected="what the log says",
            actual=one.reason,
            position=one.position,
        )
    waiting = max(0, found.head - max(found.last, found.first - 1))
    shell.say(f"{found.stream}: {plural(found.compared, 'position')} compared, {waiting} not relayed yet")


async def _compared(url: str, settings: NatsSettings) -> Comparison:
    from hive_bus.mirror.comparison import compare
    from hive_bus.mirror.connection import connected
    from hive_core_db.engine import open_store

    # The connection first: a server that is away must not cost the log anything.
    async with connected(settings, name="hive audit") as connection, await open_store(url, create=False) as store:
        return await compare(store.log, connection)
