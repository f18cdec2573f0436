"""How an event looks on NATS: its subject, its headers, its body. `docs/nats.md` promises this to programs in other languages.

Pure. The whole row travels: a message and its sequence make the same record as the database. Texts in headers are
percent-encoded where they hold anything but visible ASCII, or a percent sign; what an event does not have has no header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from hive_core_db.records import LogMeta, StoredEvent
from hive_errors.mirror import MirrorNameInvalid

EVENT_ID: Final = "Hive-Event-Id"
DIGEST: Final = "Hive-Digest"
BLOB: Final = "Hive-Blob"
EXPECTED_SEQUENCE: Final = "Nats-Expected-Last-Sequence"
EXPECTED_STREAM: Final = "Nats-Expected-Stream"

ROOM: Final = 4096
"""Bytes of a message that are kept free for what the protocol adds."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Every visible character but '%'.
_SAFE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"


class Message(NamedTuple):
    """What is published for one event; ``blob`` says that the body is too large for the server and stays in the database."""

    subject: str
    headers: dict[str, str]
    body: bytes
    blob: bool = False

    @property
    def digest(self) -> bytes:
        """The sha256 of all of it: subject, headers of ours in order of their names, body."""
        own = sorted((name, value) for name, value in self.headers.items() if name.startswith("Hive-"))
        text = "\n".join([self.subject, *(f"{name}: {value}" for name, value in own), ""])
        return sha256(text.encode() + self.body).digest()


class Names(NamedTuple):
    """What a log is called on NATS, in one epoch."""

    stream: str
    events: str
    """The subjects of all events: ``hive.<name>.events.>``."""
    prefix: str
    head: str
    signals: str
    """What the subjects of signals begin with: ``hive.<name>.signals.``."""
    past: str
    """Where the events of this epoch are once another one began: ``hive.<name>.epoch_<n>.>``."""


def names_of(name: str, epoch: int) -> Names:
    """What the log of this name is called in this epoch. Raises :class:`MirrorNameInvalid`."""
    if _NAME.fullmatch(name) is None:
        raise MirrorNameInvalid(name=name)
    base = f"hive.{name}"
    return Names(
        stream=f"HIVE_{name}_{epoch}",
        events=f"{base}.events.>",
        prefix=f"{base}.events.",
        head=f"{base}.head",
        signals=f"{base}.signals.",
        past=f"{base}.epoch_{epoch}.>",
    )


def metadata_of(meta: LogMeta, epoch_id: str) -> dict[str, str]:
    """What a stream says of whose mirror it is."""
    return {"hive_log_id": meta.log_id, "hive_epoch": str(meta.epoch), "hive_epoch_id": epoch_id}


def encode(row: StoredEvent, prefix: str, *, max_payload: int, blob: bool | None = None) -> Message:
    """Return the message of an event; ``blob`` None: its body stays behind only if ``max_payload`` bytes cannot hold it."""
    headers = {
        EVENT_ID: row.event_id,
        "Hive-Stream": _text(row.stream),
        "Hive-Version": str(row.version),
        "Hive-Correlation-Id": _text(row.correlation_id),
        "Hive-Source": _text(row.source),
        "Hive-Schema-Version": str(row.schema_version),
        "Hive-Occurred-At": str(row.occurred_at),
        "Hive-Recorded-At": str(row.recorded_at),
        "Hive-Append-First": str(row.append_first),
        DIGEST: row.digest,
    }
    if row.causation_id is not None:
        headers["Hive-Causation-Id"] = _text(row.causation_id)
    if row.cause_position is not None:
        headers["Hive-Cause-Position"] = str(row.cause_position)
    if row.decided_by is not None:
        headers["Hive-Decided-By"] = _text(row.decided_by)
    if row.metadata is not None:
        headers["Hive-Metadata"] = _text(row.metadata)
    body = row.payload.encode()
    if blob is None:
        # Headers are bounded by what publish accepts; only near the limit is it worth counting them.
        blob = len(body) + ROOM * 16 > max_payload and len(body) + _size(headers) + ROOM > max_payload
    if blob:
        headers[BLOB] = f"sha256:{row.digest}"
        body = b""
    return Message(prefix + row.topic, headers, body, blob)


def decode(position: int, topic: str, headers: Mapping[str, str], body: bytes) -> StoredEvent:
    """The row of a message, column by column what the database has. Not for one whose body is in the database (``BLOB``).

    Raises :class:`ValueError` where no relay published it at this position, or a byte of its body is another.
    """
    try:
        if int(headers[EXPECTED_SEQUENCE]) != position - 1:
            raise ValueError(f"it was published to follow {headers[EXPECTED_SEQUENCE]}")
        digest, causation, cause = headers[DIGEST], headers.get("Hive-Causation-Id"), headers.get("Hive-Cause-Position")
        decided, metadata = headers.get("Hive-Decided-By"), headers.get("Hive-Metadata")
        if sha256(body).hexdigest() != digest:
            raise ValueError("its body is not what its digest says")
        return StoredEvent(
            position,
            headers[EVENT_ID],
            decode_text(headers["Hive-Stream"]),
            int(headers["Hive-Version"]),
            topic,
            decode_text(headers["Hive-Correlation-Id"]),
            None if causation is None else decode_text(causation),
            None if cause is None else int(cause),
            None if decided is None else decode_text(decided),
            decode_text(headers["Hive-Source"]),
            int(headers["Hive-Schema-Version"]),
            body.decode(),
            None if metadata is None else decode_text(metadata),
            digest,
            int(headers["Hive-Append-First"]),
            int(headers["Hive-Occurred-At"]),
            int(headers["Hive-Recorded-At"]),
        )
    except KeyError as missing:
        raise ValueError(f"it has no header {missing.args[0]}") from missing


def decode_text(value: str) -> str:
    """The text that a header stands for."""
    return unquote(value, errors="strict") if "%" in value else value


def is_ours(headers: Mapping[str, str]) -> bool:
    """Whether a message at least looks like one of a relay."""
    return EVENT_ID in headers and DIGEST in headers


def _text(value: str) -> str:
    if value.isascii() and value.isprintable() and " " not in value and "%" not in value:
        return value
    return quote(value, safe=_SAFE)


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.items())
