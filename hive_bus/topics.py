r"""Topics and patterns: what a topic may look like, and which topics a pattern means.

A topic is ``[a-z][a-z0-9_]*(\.[a-z0-9_]+){1,7}``, at most 128 characters, so that it
can be a NATS subject as it is. A pattern is a NATS pattern: ``*`` is one part, a last
``>`` one or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from hive_errors import InvalidTopic

_TOPIC: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+){1,7}")
_LONGEST: Final = 128


def check_topic(topic: str) -> str:
    """Return ``topic``, or raise :class:`InvalidTopic`."""
    if len(topic) > _LONGEST:
        raise InvalidTopic(topic=topic[:40] + "...", reason=f"it has {len(topic)} characters, the limit is {_LONGEST}")
    if not _TOPIC.fullmatch(topic):
        raise InvalidTopic(topic=topic, reason="it needs 2 to 8 parts of a-z, 0-9 and _, separated by dots")
    return topic


def check_pattern(pattern: str) -> str:
    """Return ``pattern``, or raise :class:`InvalidTopic`."""
    parts = pattern.split(".")
    if len(pattern) > _LONGEST or len(parts) > 8 or not pattern:
        raise InvalidTopic(topic=pattern[:40], reason="a pattern has 1 to 8 parts and at most 128 characters")
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "*" or (part == ">" and last) or re.fullmatch(r"[a-z0-9_]+", part):
            continue
        allowed = "'>' may only be the last part" if part == ">" else "a part is a-z, 0-9 and _, or '*', or a last '>'"
        raise InvalidTopic(topic=pattern, reason=f"part {index + 1} is {part!r}; {allowed}")
    return pattern


def is_pattern(text: str) -> bool:
    """Whether ``text`` holds a wildcard."""
    return "*" in text or ">" in text


@lru_cache(maxsize=4096)
def matches(pattern: str, topic: str) -> bool:
    """Whether the pattern means this topic."""
    wanted, parts = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        if len(parts) < len(wanted):
            return False
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1]
    return len(wanted) == len(parts) and all(w in {"*", p} for w, p in zip(wanted, parts, strict=True))


def expand(patterns: Iterable[str], topics: Iterable[str]) -> list[str]:
    """The topics that any of the patterns means, sorted."""
    patterns = list(patterns)
    return sorted(topic for topic in topics if any(matches(pattern, topic) for pattern in patterns))
