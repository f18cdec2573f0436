"""The proof that the mirror is the log: digests of a thousand positions on both sides, and by name what differs.

Reads only. What the stream keeps no more, by its limits, and what no relay has published yet is not compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from hive_bus.mirror.connection import Connection
from hive_bus.mirror.encoding import BLOB, Message, encode, is_ours
from hive_bus.mirror.stream import Mirrored, find, mirrored, must_be_ours
from hive_core_db.store import EventLog
from hive_errors.mirror import MirrorMissing

THOUSAND: Final = 1000
MOST_NAMED: Final = 100
"""So many differences are named; the others are counted."""
_LOOKS_AGAIN: Final = (0.1, 0.4)
"""Seconds before it is believed that a message is missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A position where log and mirror are not equal: ``missing`` in the mirror, ``foreign`` there, ``beyond`` the log's head, or a ``field``."""

    position: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """Up to a thousand positions and the digest of each side; "" where a side has none of them."""

    first: int
    last: int
    log: str
    mirror: str

    @property
    def equal(self) -> bool:
        """Whether both sides say the same."""
        return self.log == self.mirror


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and how it came out."""

    stream: str
    first: int
    last: int
    head: int
    blocks: int
    compared: int
    differing: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether every position that the mirror should have is there, byte for byte."""
        return not self.differing


async def compare(log: EventLog, connection: Connection) -> Comparison:
    """Compare all that the stream of the present epoch has with the log.

    Raises :class:`MirrorMissing`, :class:`MirrorNotOurs`, :class:`MirrorUnreachable`, and what the store fails with.
    """
    known = mirrored(await log.meta(), await log.epochs())
    stream = await find(connection, known.names.stream)
    if stream is None:
        raise MirrorMissing(stream=known.names.stream)
    must_be_ours(stream, known)
    head = await log.head()
    blocks = compared = differing = 0
    named: list[Difference] = []
    async for block, found in _blocks(log, connection, known, stream.first, stream.last):
        blocks += 1
        compared += block.last - block.first + 1
        differing += len(found)
        named += found[: MOST_NAMED - len(named)]
    return Comparison(
        stream=stream.name,
        first=stream.first,
        last=stream.last,
        head=head,
        blocks=blocks,
        compared=compared,
        differing=differing,
        differences=tuple(named),
    )


async def _blocks(
    log: EventLog, connection: Connection, known: Mirrored, first: int, last: int
) -> AsyncIterator[tuple[Block, list[Difference]]]:
    while first <= last:
        until = min(last, first + THOUSAND - 1 - (first - 1) % THOUSAND)
        block, differences = await block_of(log, connection, known, first, until)
        for pause in _LOOKS_AGAIN:
            if all(one.kind != "missing" for one in differences):
                break
            # A copy in a cluster that is behind by a moment may have answered; or the stream's limits removed something meanwhile.
            await asyncio.sleep(pause)
            stream = await find(connection, known.names.stream)
            first = first if stream is None else max(first, stream.first)
            block, differences = await block_of(log, connection, known, first, until)
        if first <= until:
            yield block, differences
        first = max(first, until + 1)


async def block_of(
    log: EventLog, connection: Connection, known: Mirrored, first: int, last: int
) -> tuple[Block, list[Difference]]:
    """Compare a stretch of at most some thousand positions."""
    theirs = await connection.messages(known.names.stream, first, last)
    rows = await log.read(first - 1, limit=last - first + 1, until=last)
    ours: dict[int, Message] = {}
    for row in rows:
        there = theirs.get(row.position)
        # A body that the server's limit kept away is the same message, whatever the limit is today.
        blob = there is not None and BLOB in there.headers
        ours[row.position] = encode(row, known.names.prefix, max_payload=0, blob=blob)
    differences = [
        found
        for position in range(first, last + 1)
        if (found := _difference(position, ours.get(position), theirs.get(position))) is not None
    ]
    return Block(first, last, _digest(ours), _digest(theirs)), differences


def _difference(position: int, ours: Message | None, theirs: Message | None) -> Difference | None:
    if theirs is None:
        return Difference(position, "missing", "the mirror does not have it")
    if not is_ours(theirs.headers):
        return Difference(position, "foreign", f"a message to {theirs.subject} that no relay published")
    if ours is None:
        return Difference(position, "beyond", "the log does not have it")
    if ours.digest == theirs.digest:
        return None
    if ours.subject != theirs.subject:
        return Difference(position, "subject", f"the log says {ours.subject}, the mirror {theirs.subject}")
    for name in sorted({*ours.headers, *(key for key in theirs.headers if key.startswith("Hive-"))}):
        if ours.headers.get(name) != theirs.headers.get(name):
            said = f"the log says {ours.headers.get(name)}, the mirror {theirs.headers.get(name)}"
            return Difference(position, name, said)
    at = next(
        (index for index, (a, b) in enumerate(zip(ours.body, theirs.body, strict=False)) if a != b),
        min(len(ours.body), len(theirs.body)),
    )
    return Difference(
        position, "body", f"byte {at} differs (the log has {len(ours.body)} bytes, the mirror {len(theirs.body)})"
    )


def _digest(messages: dict[int, Message]) -> str:
    if not messages:
        return ""
    total = sha256()
    for position in sorted(messages):
        total.update(b"%d " % position + messages[position].digest)
    return total.hexdigest()
