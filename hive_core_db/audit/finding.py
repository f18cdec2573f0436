"""What the auditor says, and the words it is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be; ``code`` names the invariant, ``position`` the event if there is one."""

    code: str
    subject: str
    what: str
    expected: str
    actual: str
    position: int | None = None

    def __str__(self) -> str:
        place = "" if self.position is None else f" at position {self.position}"
        return f"{self.code}{place}: {self.what} ({self.subject}): expected {self.expected}, found {self.actual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What the topics mean; floor 3 knows it.

    ``results`` maps an intent's topic to the topics that end it; ``starts`` and ``retries`` are the
    topics that say that an attempt began and that it failed. An event belongs to the intent that is its
    causation. ``queued`` tells whether an intent (topic, payload) goes into the queue at all.
    """

    results: Mapping[str, Collection[str]] = field(default_factory=dict)
    starts: Collection[str] = ()
    retries: Collection[str] = ()
    queued: Callable[[str, str], bool] = lambda _topic, _payload: True


def at(code: str, position: int, what: str, expected: str, actual: str) -> Finding:
    """A finding about an event."""
    return Finding(
        code=code, position=position, subject=f"event {position}", what=what, expected=expected, actual=actual
    )


def fact(code: str, subject: str, what: str, expected: str, actual: str) -> Finding:
    """A finding about anything else."""
    return Finding(code=code, subject=subject, what=what, expected=expected, actual=actual)
