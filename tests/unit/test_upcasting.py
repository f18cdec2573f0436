"""Upcasting: old payloads become today's bodies on read, step by step; what is newer is refused."""

from __future__ import annotations

from typing import Any

import pytest

from hive_bus.codec import decode
from hive_bus.event import Event
from hive_bus.events import WorkflowRequested
from hive_bus.upcasting import upcast, upcaster
from hive_errors import NewerVersion, UndecodableEvent, UpcasterMissing


class Priced(Event, topic="upcast_test.priced", version=3):
    cents: int
    currency: str


@upcaster("upcast_test.priced", from_version=1)
def _euros_became_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {"cents": data["euros"] * 100}


@upcaster("upcast_test.priced", from_version=2)
def _currency_came(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": "EUR"}


class Gap(Event, topic="upcast_test.gap", version=3):
    value: int = 0


def test_an_old_payload_walks_through_every_version() -> None:
    """Version 1 becomes 2 becomes 3."""
    assert decode("upcast_test.priced", 1, '{"euros":2}') == Priced(cents=200, currency="EUR")
    assert decode("upcast_test.priced", 2, '{"cents":5}') == Priced(cents=5, currency="EUR")


def test_the_first_version_of_a_request_is_still_read() -> None:
    """Its field was called prompt once."""
    event = decode("workflow.requested", 1, '{"prompt":"make the tests pass"}')
    assert isinstance(event, WorkflowRequested)
    assert event.goal == "make the tests pass"


def test_a_missing_step_is_named() -> None:
    """Topic and version of the upcaster that nobody registered."""
    with pytest.raises(UpcasterMissing, match=r"upcast_test\.gap has no upcaster from version 1"):
        decode("upcast_test.gap", 1, "{}")


def test_a_newer_version_is_not_guessed_at() -> None:
    """Another process knows it; this one must not drop what it does not understand."""
    with pytest.raises(NewerVersion):
        decode("upcast_test.priced", 4, '{"cents":1,"currency":"EUR"}')


def test_an_upcaster_that_fails_leaves_an_undecodable_event() -> None:
    """The payload is kept as it is, and the reader is told why."""
    with pytest.raises(UndecodableEvent):
        decode("upcast_test.priced", 1, '{"euros":"two"}')


def test_the_present_version_needs_no_step() -> None:
    """Nothing is touched."""
    assert upcast("upcast_test.priced", {"a": 1}, stored=3, known=3) == {"a": 1}
