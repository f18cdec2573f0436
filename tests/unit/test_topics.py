"""Topics and patterns: what is refused, and that a pattern means what NATS means by it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_bus.topics import check_pattern, check_topic, expand, is_pattern, matches
from hive_errors import InvalidTopic

PART = st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True)
TOPIC = st.builds(
    lambda first, rest: ".".join([first, *rest]),
    st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True),
    st.lists(PART, min_size=1, max_size=7),
)


@given(TOPIC)
def test_a_topic_of_the_right_form_is_returned(topic: str) -> None:
    """Two to eight parts of lower case letters, digits and underscores are a topic."""
    assert check_topic(topic) == topic


@given(st.text(max_size=20))
def test_only_topics_of_the_right_form_pass(text: str) -> None:
    """Whatever is not of the form is refused by name, whatever it is."""
    if re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+){1,7}", text):
        assert check_topic(text) == text
    else:
        with pytest.raises(InvalidTopic):
            check_topic(text)


@pytest.mark.parametrize(
    "topic", ["", "order", "Order.placed", "1a.b", "a..b", "a.b.", ".a.b", "a.b\n", "a.é", "a b.c"]
)
def test_a_malformed_topic_is_refused(topic: str) -> None:
    """Also where a line break would slip through a careless expression."""
    with pytest.raises(InvalidTopic):
        check_topic(topic)


def test_a_topic_has_at_most_128_characters() -> None:
    """The 128th character is the last; the error does not repeat the whole text."""
    assert check_topic("a." + "b" * 126)
    with pytest.raises(InvalidTopic) as refused:
        check_topic("a." + "b" * 127)
    assert len(str(refused.value)) < 160


@pytest.mark.parametrize(
    ("pattern", "topic", "meant"),
    [
        ("task.*", "task.ready", True),
        ("task.*", "task.ready.now", False),
        ("task.>", "task.ready.now", True),
        ("task.>", "task.ready", True),
        (">", "task.ready", True),
        ("task.ready", "task.ready", True),
        ("task.ready", "task.readyx", False),
        ("*.completed", "task.completed", True),
        ("*.completed", "a.b.completed", False),
        ("a.*.c", "a.b.c", True),
        ("a.b.>", "a.b", False),
    ],
)
def test_a_pattern_means_what_nats_means(pattern: str, topic: str, *, meant: bool) -> None:
    """A star is one part, a last `>` one or more."""
    assert matches(check_pattern(pattern), topic) is meant


@given(TOPIC, st.data())
def test_a_topic_with_parts_starred_still_means_it(topic: str, data: st.DataObject) -> None:
    """Replacing any part by a star, or the end by `>`, gives a pattern that means the topic."""
    parts = topic.split(".")
    index = data.draw(st.integers(0, len(parts) - 1))
    starred = ".".join("*" if place == index else part for place, part in enumerate(parts))
    assert matches(check_pattern(starred), topic)
    assert matches(check_pattern(".".join([*parts[:index], ">"])), topic)


@pytest.mark.parametrize("pattern", ["", "a.>.b", "a.**", "A.*", "a..b", "a.b.c.d.e.f.g.h.i", "a*.b"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    """A `>` stands only at the end, a star only alone."""
    with pytest.raises(InvalidTopic):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "said"), [("a.>.b", "'>' may only be the last part"), ("Foo Bar", "a part is a-z")]
)
def test_a_refusal_says_what_is_wrong(pattern: str, said: str) -> None:
    """The reason is about the part that is wrong."""
    with pytest.raises(InvalidTopic, match=said):
        check_pattern(pattern)


def test_patterns_expand_to_the_topics_there_are() -> None:
    """Each topic once, sorted, whichever patterns mean it."""
    topics = ["task.ready", "task.failed", "order.placed"]
    assert expand(["task.*", "*.failed"], topics) == ["task.failed", "task.ready"]
    assert expand([], topics) == []


def test_a_wildcard_makes_a_pattern() -> None:
    """A plain topic is none."""
    assert is_pattern("a.*")
    assert is_pattern("a.>")
    assert not is_pattern("a.b")
