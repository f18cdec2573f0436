"""Golden samples: every version of every built-in event that was ever written is still read, and today's is written the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import hive_bus.events
from hive_bus.codec import decode, encode
from hive_bus.event import Event, RawEvent, event_class

SAMPLES = sorted((Path(__file__).parents[1] / "golden" / "events").glob("*.json"))
BUILT_IN = [cls for name in hive_bus.events.__all__ if issubclass(cls := getattr(hive_bus.events, name), Event)]


def _parts(sample: Path) -> tuple[str, int]:
    topic, _, version = sample.name.removesuffix(".json").rpartition(".v")
    return topic, int(version)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_what_was_written_is_still_read(sample: Path) -> None:
    """A sample decodes to its class; one of the present version encodes to the same bytes again."""
    topic, version = _parts(sample)
    payload = sample.read_text().rstrip("\n")
    event = decode(topic, version, payload)
    assert not isinstance(event, RawEvent)
    if version == type(event).VERSION:
        assert encode(event).decode() == payload


def test_every_version_of_every_event_has_a_sample() -> None:
    """A new event, and a new version of an old one, needs a file here; an old file is never changed or removed."""
    wanted = {f"{cls.TOPIC}.v{version}.json" for cls in BUILT_IN for version in range(1, cls.VERSION + 1)}
    assert wanted == {sample.name for sample in SAMPLES}


def test_the_published_language_is_all_built_in() -> None:
    """Every exported class has a topic, and is the one that the topic means."""
    assert [cls.__name__ for cls in BUILT_IN if event_class(cls.TOPIC) is not cls] == []
