"""The codec: what it accepts comes back equal and byte for byte the same, what JSON cannot hold is refused by its path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from hive_bus.codec import METADATA_LIMIT, PAYLOAD_LIMIT, decode, digest, encode, encode_metadata
from hive_bus.event import Event, RawEvent
from hive_errors import MetadataTooLarge, PayloadRefused, UndecodableEvent


class Anything(Event, topic="codec.anything"):
    value: Any = None
    items: tuple[int, ...] = ()
    names: dict[str, float] = Field(default_factory=dict)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=JSON, items=st.lists(st.integers(), max_size=3), names=st.dictionaries(st.text(max_size=5), st.floats()))
def test_what_is_accepted_comes_back_equal_and_byte_for_byte(
    value: Any, items: list[int], names: dict[str, float]
) -> None:
    """Encoding is either refused, or decodes to an equal body that encodes to the same bytes."""
    event = Anything(value=value, items=tuple(items), names=names)
    try:
        payload = encode(event)
    except PayloadRefused:
        return
    again = decode("codec.anything", 1, payload.decode())
    assert again == event
    assert encode(again) == payload


@given(JSON)
def test_only_what_json_cannot_hold_is_refused(value: Any) -> None:
    """A value is refused exactly when it has NaN, an infinity, NUL, a lone surrogate or an integer beyond 64 bits in it."""
    event = Anything(value=value)
    if _is_bad(value):
        with pytest.raises(PayloadRefused) as refused:
            encode(event)
        assert refused.value.field.startswith("value")
    else:
        assert encode(event)


def _is_bad(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_bad(key) or _is_bad(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_is_bad, value))
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, int):
        return not -(2**63) <= value < 2**63
    if isinstance(value, str):
        return "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value)
    return False


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, float("nan")]}, "value.a[1]"),
        ({"a": float("-inf")}, "value.a"),
        (2**63, "value"),
        (-(2**63) - 1, "value"),
        ({"a\x00": 1}, "value.a\x00 (key)"),
        ([{"b": "\ud800"}], "value[0].b"),
        ("x\x00", "value"),
    ],
)
def test_a_refusal_names_the_field(value: Any, path: str) -> None:
    """The path leads to the value, and the message has topic, value and reason."""
    with pytest.raises(PayloadRefused) as refused:
        encode(Anything(value=value))
    assert refused.value.field == path
    assert refused.value.topic == "codec.anything"
    assert refused.value.reason


@pytest.mark.parametrize(
    "value", ["NaN", {"Infinity": "-Infinity"}, "1234567890123456789012", 2**63 - 1, -(2**63), "\\u0000"]
)
def test_what_only_looks_suspicious_is_accepted(value: Any) -> None:
    """Words and digits in text are text; the largest integers fit."""
    event = Anything(value=value)
    assert decode("codec.anything", 1, encode(event).decode()) == event


def test_a_value_that_is_no_json_at_all_is_refused() -> None:
    """An object that the serialiser does not know is named as such."""
    with pytest.raises(PayloadRefused):
        encode(Anything(value=object()))


def test_a_body_over_the_limit_is_refused() -> None:
    """16 MiB is the most that the log keeps of one body."""
    with pytest.raises(PayloadRefused, match="limit"):
        encode(Anything(value="x" * PAYLOAD_LIMIT))


def test_metadata_is_small_and_under_the_same_refusals() -> None:
    """8 KiB at most, and a refusal names the key."""
    assert encode_metadata("a.b", {"k": [1]}) == '{"k":[1]}'
    with pytest.raises(MetadataTooLarge):
        encode_metadata("a.b", {"k": "x" * METADATA_LIMIT})
    with pytest.raises(PayloadRefused) as refused:
        encode_metadata("a.b", {"k": float("nan")})
    assert refused.value.field == "metadata.k"
    with pytest.raises(PayloadRefused, match="metadata"):
        encode_metadata("a.b", {"k": object()})


def test_an_unknown_topic_is_a_raw_event() -> None:
    """It can be read and traced, with its version and data."""
    assert decode("never.heard_of", 3, '{"a":1}') == RawEvent(topic="never.heard_of", version=3, data={"a": 1})


@pytest.mark.parametrize("payload", ['{"value":1,"unknown":2}', '{"items":["x"]}', "[]", "not json"])
def test_a_payload_that_does_not_fit_is_an_error_with_reasons(payload: str) -> None:
    """The topic, the version and what is wrong are named."""
    with pytest.raises(UndecodableEvent) as problem:
        decode("codec.anything", 1, payload)
    assert problem.value.reason


def test_the_digest_is_the_sha256_of_the_bytes() -> None:
    """It names blobs and proves bytes on the mirror."""
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
