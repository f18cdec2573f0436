"""The stream of one epoch: made, found, judged whether it is ours, and moved aside when the next epoch begins.

A stream's metadata says whose it is. Nothing here changes a stream that another log, or another copy of this one, made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from hive_bus.mirror.connection import ApiRefused, Connection
from hive_bus.mirror.encoding import Names, metadata_of, names_of
from hive_bus.mirror.settings import NatsSettings
from hive_core_db.records import Epoch, LogMeta
from hive_errors.mirror import MirrorNotOurs, MirrorUnsuitable

if TYPE_CHECKING:
    from nats.aio.msg import Msg

SILENCE: Final = 2.5
"""Seconds without a word of an older epoch's relay (it speaks every second), after which its stream is moved aside."""
PATIENCE: Final = 15.0
"""Seconds that an older epoch's relay is given to notice that its time is over."""

_NOT_FOUND: Final = 10059
_IN_USE: Final = frozenset({10058, 10065})  # the name is taken, or subjects overlap: somebody was first
_TRIES: Final = 10
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as the server describes it."""

    name: str
    config: dict[str, Any]
    created: str
    first: int
    last: int
    messages: int

    @property
    def owner(self) -> dict[str, str]:
        """What its metadata says of whose mirror it is; empty where a hive did not make it."""
        said = self.config.get("metadata") or {}
        return {key: str(value) for key, value in said.items() if key.startswith("hive_")}

    @property
    def subjects(self) -> list[str]:
        """What it listens to."""
        return list(self.config.get("subjects") or ())


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The log as the mirror sees it: what it is, its present epoch, and the names that follow."""

    meta: LogMeta
    epochs: tuple[Epoch, ...]
    names: Names

    @property
    def epoch(self) -> Epoch:
        """The present epoch."""
        return self.epochs[-1]

    @property
    def metadata(self) -> dict[str, str]:
        """What its stream says of itself."""
        return metadata_of(self.meta, self.epoch.epoch_id)


def mirrored(meta: LogMeta, epochs: Sequence[Epoch]) -> Mirrored:
    """Put together what the log says of itself. Raises :class:`MirrorNameInvalid`."""
    return Mirrored(meta, tuple(epochs), names_of(meta.name, meta.epoch))


async def find(connection: Connection, name: str) -> Stream | None:
    """The stream of this name, None if there is none."""
    try:
        answer = await connection.ask(f"STREAM.INFO.{name}")
    except ApiRefused as problem:
        if problem.code == _NOT_FOUND:
            return None
        raise _unsuitable(connection, problem) from problem
    return _stream(answer)


async def ensure(
    connection: Connection,
    log: Mirrored,
    settings: NatsSettings,
    *,
    silence: float = SILENCE,
    patience: float = PATIENCE,
) -> Stream:
    """Return the stream of the log's present epoch; make it if it is not there, and move an older epoch's aside first.

    Raises :class:`MirrorNotOurs`, and what the server fails with.
    """
    for _ in range(_TRIES):
        stream = await find(connection, log.names.stream)
        if stream is not None:
            must_be_ours(stream, log)
            return stream
        listening = await _listening(connection, log.names.events)
        if any(found.name == log.names.stream for found in listening):
            continue  # another relay of this log has made it meanwhile
        for older in listening:
            _must_be_older(older, log)
            await _await_silence(connection, log, silence=silence, patience=patience)
            await _move_aside(connection, older)
        try:
            await connection.ask(f"STREAM.CREATE.{log.names.stream}", _config(log, settings))
        except ApiRefused as problem:
            if problem.code not in _IN_USE:
                raise _unsuitable(connection, problem) from problem
    raise MirrorNotOurs(stream=log.names.stream, reason=f"a stream of others listens to a part of {log.names.events}")


def must_be_ours(stream: Stream, log: Mirrored) -> None:
    """Raise :class:`MirrorNotOurs` unless the stream is the mirror of this log, of this copy of it, in this epoch."""
    wanted, found = log.metadata, stream.owner
    if found.get("hive_log_id") != wanted["hive_log_id"]:
        raise MirrorNotOurs(stream=stream.name, reason=f"it is of log {found.get('hive_log_id', 'nobody')}")
    if found != wanted:
        raise MirrorNotOurs(
            stream=stream.name, reason="it is of another copy of this log, which began an epoch of its own"
        )
    if stream.subjects != [log.names.events]:
        raise MirrorNotOurs(
            stream=stream.name,
            reason=f"it listens to {', '.join(stream.subjects)}: another copy of this log has begun a new epoch",
        )


async def remove(connection: Connection, name: str) -> None:
    """Delete a stream; a relay makes it again from the log."""
    try:
        await connection.ask(f"STREAM.DELETE.{name}")
    except ApiRefused as problem:
        if problem.code != _NOT_FOUND:
            raise _unsuitable(connection, problem) from problem


def _must_be_older(stream: Stream, log: Mirrored) -> None:
    found = stream.owner
    if found.get("hive_log_id") != log.meta.log_id:
        raise MirrorNotOurs(stream=stream.name, reason=f"it is of log {found.get('hive_log_id', 'nobody')}")
    if found.get("hive_epoch_id") not in {epoch.epoch_id for epoch in log.epochs[:-1]}:
        raise MirrorNotOurs(
            stream=stream.name, reason="it is of another copy of this log, which began an epoch of its own"
        )


async def _await_silence(connection: Connection, log: Mirrored, *, silence: float, patience: float) -> None:
    """Wait until nobody relays an older epoch any more: a copy of a log whose original is alive must not take its place.

    Raises :class:`MirrorNotOurs` if somebody goes on and on.
    """
    from nats.errors import Error

    loop = asyncio.get_running_loop()
    begun = spoken = loop.time()
    speaker = ""

    async def hear(message: Msg) -> None:
        nonlocal spoken, speaker
        said = orjson.loads(message.data)
        if said.get("log_id") == log.meta.log_id and said.get("epoch_id") != log.epoch.epoch_id:
            spoken, speaker = loop.time(), f"epoch {said.get('epoch')}"

    try:
        subscription = await connection.client.subscribe(log.names.head, cb=hear)
    except (Error, OSError) as problem:
        raise connection.unreachable(problem) from problem
    try:
        while (rest := spoken + silence - loop.time()) > 0:
            if loop.time() - begun > patience:
                raise MirrorNotOurs(
                    stream=log.names.stream,
                    reason=f"a relay of {speaker} is at work: this database seems to be a copy of one that is alive",
                )
            await asyncio.sleep(rest)
    finally:
        await connection.end(subscription)


async def _listening(connection: Connection, subject: str) -> list[Stream]:
    """The streams that listen to a subject: at most one, for the server keeps subjects apart."""
    answer = await connection.ask("STREAM.LIST", {"subject": subject})
    return [_stream(found) for found in answer.get("streams") or ()]


async def _move_aside(connection: Connection, stream: Stream) -> None:
    """Give an older epoch's stream the subjects of the past; its messages stay as they are."""
    name = stream.name.removeprefix("HIVE_").rpartition("_")[0]
    past = names_of(name, int(stream.owner["hive_epoch"])).past
    try:
        await connection.ask(f"STREAM.UPDATE.{stream.name}", {**stream.config, "subjects": [past]})
    except ApiRefused as problem:
        raise _unsuitable(connection, problem) from problem


def _config(log: Mirrored, settings: NatsSettings) -> dict[str, Any]:
    return {
        "name": log.names.stream,
        "description": f"the log {log.meta.name}, epoch {log.epoch.number}: a message's sequence is its position",
        "subjects": [log.names.events],
        "metadata": log.metadata,
        "first_seq": log.epoch.first_position,
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_age": round(settings.keep_days * 86_400 * _NANOSECONDS),
        "max_bytes": settings.keep_bytes or -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
    }


def _stream(answer: dict[str, Any]) -> Stream:
    state = answer["state"]
    return Stream(
        name=answer["config"]["name"],
        config=answer["config"],
        created=str(answer.get("created", "")),
        first=int(state["first_seq"]),
        last=int(state["last_seq"]),
        messages=int(state["messages"]),
    )


def _unsuitable(connection: Connection, problem: ApiRefused) -> MirrorUnsuitable:
    return MirrorUnsuitable(
        url=connection.url,
        reason=f"JetStream refused: {problem.description} ({problem.code})",
        advised="look at the server's limits and this user's permissions on $JS.API.>; docs/nats.md names what a relay needs",
    )
