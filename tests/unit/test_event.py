"""Event classes: a topic and a version each, one owner per topic, frozen bodies."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hive_bus.event import Draft, Event, event_class, registered_topics
from hive_errors import InvalidTopic, TopicTaken


class Placed(Event, topic="event_test.placed", version=2):
    number: int


def test_a_class_claims_its_topic() -> None:
    """Topic and version are the class's arguments, and the registry finds it."""
    assert (Placed.TOPIC, Placed.VERSION) == ("event_test.placed", 2)
    assert event_class("event_test.placed") is Placed
    assert "event_test.placed" in registered_topics()


def test_a_body_is_frozen_and_strict_about_its_fields() -> None:
    """Nothing changes it, and a field that it does not have is refused."""
    placed = Placed(number=1)
    with pytest.raises(ValidationError):
        setattr(placed, "number", 2)  # noqa: B010 - the type checker refuses it already
    with pytest.raises(ValidationError):
        Placed(number=1, other=2)  # type: ignore[call-arg]


def test_a_base_class_claims_nothing() -> None:
    """Without a topic it is a base for others."""

    class Base(Event):
        shared: str = ""

    class Child(Base, topic="event_test.child"):
        pass

    assert Base.TOPIC == ""
    assert event_class("event_test.child") is Child


def test_a_subclass_does_not_inherit_its_parents_topic() -> None:
    """It would be published as something that it is not."""

    class Quiet(Placed):
        pass

    assert (Quiet.TOPIC, Quiet.VERSION) == ("", 1)
    assert event_class("event_test.placed") is Placed


def test_two_classes_cannot_claim_one_topic() -> None:
    """The error names both."""
    with pytest.raises(TopicTaken, match=r"Placed.*Intruder"):

        class Intruder(Event, topic="event_test.placed"):
            pass


def test_the_same_class_may_be_defined_again() -> None:
    """A reloaded module takes its own topic over."""
    body = {"__module__": __name__, "__qualname__": "Again"}
    first = type("Again", (Event,), dict(body), topic="event_test.again")
    second = type("Again", (Event,), dict(body), topic="event_test.again")
    assert first is not second
    assert event_class("event_test.again") is second


def test_a_malformed_topic_is_refused_at_the_class() -> None:
    """The place where it was written is where it fails."""
    with pytest.raises(InvalidTopic):

        class Bad(Event, topic="nodots"):
            pass


def test_a_draft_only_wishes() -> None:
    """What nobody said is left to publish."""
    draft = Draft(event=Placed(number=1))
    assert (draft.stream, draft.correlation_id, draft.source, draft.occurred_at) == (None, None, None, None)
