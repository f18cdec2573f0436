"""How an event looks on NATS: texts survive headers, digests cover everything, a name must fit a subject."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_bus.mirror.encoding import BLOB, EXPECTED_SEQUENCE, Message, decode, decode_text, encode, names_of
from hive_core_db.records import StoredEvent
from hive_errors.mirror import MirrorNameInvalid

ROW = StoredEvent(
    position=7,
    event_id="0190",
    stream="order 7",
    version=3,
    topic="order.placed",
    correlation_id="c",
    causation_id=None,
    cause_position=None,
    decided_by=None,
    source="shop",
    schema_version=1,
    payload='{"item":"ü"}',
    metadata=None,
    digest="d" * 64,
    append_first=7,
    occurred_at=1,
    recorded_at=2,
)


def made(**fields: Any) -> Message:
    """The message of the row with other fields."""
    return encode(ROW._replace(**fields), "hive.h.events.", max_payload=1_000_000)


def test_a_message_is_the_whole_row() -> None:
    """Subject, body and headers; what the event does not have has no header."""
    message = made()
    assert (message.subject, message.body) == ("hive.h.events.order.placed", '{"item":"ü"}'.encode())
    assert message.headers["Hive-Stream"] == "order%207"
    assert "Hive-Causation-Id" not in message.headers
    assert made(
        causation_id="x", cause_position=5, decided_by="queen@1", metadata="{}"
    ).headers.keys() - message.headers.keys() == {
        "Hive-Causation-Id",
        "Hive-Cause-Position",
        "Hive-Decided-By",
        "Hive-Metadata",
    }


@given(st.text())
def test_any_text_survives_a_header(text: str) -> None:
    """What is written is visible ASCII in one line, and reads back as it was."""
    written = made(stream=text.encode("utf-8", "replace").decode()).headers["Hive-Stream"]
    assert written.isascii()
    assert not written or (written.isprintable() and " " not in written)
    assert decode_text(written) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    "fields", [{"payload": "{}"}, {"stream": "x"}, {"topic": "a.b"}, {"metadata": "{}"}, {"recorded_at": 3}]
)
def test_the_digest_covers_everything(fields: dict[str, Any]) -> None:
    """Another body, subject or header is another digest; what is only for the server is not in it."""
    assert made(**fields).digest != made().digest
    sent = made()
    sent.headers["Nats-Expected-Last-Sequence"] = "6"
    assert sent.digest == made().digest


@pytest.mark.parametrize(("size", "by_reference"), [(900_000, False), (1_000_000, True)])
def test_a_body_that_the_server_cannot_take_stays_behind(size: int, by_reference: bool) -> None:
    """The message names its digest instead."""
    message = made(payload="x" * size)
    assert (message.body == b"", BLOB in message.headers) == (by_reference, by_reference)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ü", "a>", "x" * 65])
def test_a_name_must_fit_a_subject(name: str) -> None:
    """Anything else than a plain word is refused, and said."""
    with pytest.raises(MirrorNameInvalid):
        names_of(name, 1)


TEXTS = st.text().map(lambda text: text.encode("utf-8", "replace").decode())
NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
ROWS = st.builds(
    StoredEvent,
    position=st.integers(min_value=1, max_value=2**63 - 1),
    event_id=st.uuids().map(str),
    stream=TEXTS,
    version=NUMBERS,
    topic=st.just("order.placed"),
    correlation_id=TEXTS,
    causation_id=st.none() | TEXTS,
    cause_position=st.none() | NUMBERS,
    decided_by=st.none() | TEXTS,
    source=TEXTS,
    schema_version=NUMBERS,
    payload=TEXTS,
    metadata=st.none() | TEXTS,
    digest=st.just(""),
    append_first=NUMBERS,
    occurred_at=NUMBERS,
    recorded_at=NUMBERS,
).map(lambda row: row._replace(digest=sha256(row.payload.encode()).hexdigest()))


def sent(row: StoredEvent) -> Message:
    """The message of a row, as a relay's window sends it."""
    message = encode(row, "hive.h.events.", max_payload=1_000_000)
    message.headers[EXPECTED_SEQUENCE] = str(row.position - 1)
    return message


@given(ROWS)
def test_a_message_and_its_sequence_are_the_row(row: StoredEvent) -> None:
    """Every column comes back as it was, whatever texts and numbers it holds."""
    message = sent(row)
    assert decode(row.position, "order.placed", message.headers, message.body) == row


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({}, b"{}", "digest"),
        ({EXPECTED_SEQUENCE: "7"}, None, "to follow 7"),
        ({"Hive-Version": "one"}, None, "invalid literal"),
        ({"Hive-Stream": "%ff"}, None, "decode"),
    ],
)
def test_what_no_relay_published_is_no_row(headers: dict[str, str], body: bytes | None, reason: str) -> None:
    """Another body, another place, a number that is none, a text that is none: refused, with what is wrong."""
    message = sent(ROW._replace(digest=sha256(ROW.payload.encode()).hexdigest()))
    with pytest.raises(ValueError, match=reason):
        decode(7, "order.placed", {**message.headers, **headers}, message.body if body is None else body)


@pytest.mark.parametrize("name", [EXPECTED_SEQUENCE, "Hive-Digest", "Hive-Event-Id", "Hive-Recorded-At"])
def test_a_message_without_a_header_that_every_event_has_is_no_row(name: str) -> None:
    """It is named."""
    message = sent(ROW._replace(digest=sha256(ROW.payload.encode()).hexdigest()))
    del message.headers[name]
    with pytest.raises(ValueError, match=f"no header {name}"):
        decode(7, "order.placed", message.headers, message.body)
