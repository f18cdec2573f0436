"""Intents and what becomes of them: effect classes, policies, lifecycles, effect keys.

A brain asks for an effect with an intent; the work queue holds it; a hand performs
it; exactly one result ends it. Every lifecycle event's causation id is the intent's
event id: that, and nothing in its body, says which intent it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, ClassVar, Final, Literal

import rfc8785

from hive_bus.event import Event, event_class

LOST_ATTEMPTS: Final = 20
"""So many processes may die in one effect before it is thought to be what kills them."""


class EffectClass(StrEnum):
    """What may be done when a crash leaves it unknown whether an effect happened."""

    PURE = "pure"
    """It changes nothing: run again."""
    IDEMPOTENT = "idempotent"
    """Doing it twice is doing it once: run again with the same key."""
    RECONCILABLE = "reconcilable"
    """It can be asked what happened: ask, then decide."""
    UNSAFE = "unsafe"
    """Never run again silently: it ends as ``unknown``, for a brain or a person to judge."""


ENDING_SECONDS: Final = 15.0
"""What whoever keeps the time itself has to end a command whose time is over, before its process is taken for stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPolicy:
    """How the queue treats an intent. Durations are seconds; a timeout of None never strikes.

    ``labels`` are what a hand must have, ``waits_for`` is who moves it first: a hand,
    time (after ``delay``), or a person. ``max_attempts`` bounds the attempts that failed by
    themselves; attempts whose process died do not count, up to ``LOST_ATTEMPTS`` of them.
    """

    labels: tuple[str, ...]
    waits_for: Literal["hand", "time", "person"] = "hand"
    delay: float = 0.0
    priority: int = 5
    cost: float = 1.0
    effect: EffectClass = EffectClass.IDEMPOTENT
    max_attempts: int = 3
    backoff: float = 1.0
    waiting_timeout: float | None = None
    running_timeout: float | None = None
    silent_timeout: float | None = None
    total_timeout: float | None = None
    preferred: str | None = None
    hold_out: float = 0.0
    spends: bool = False
    """Whether budgets count it: its hand says how much at most, before it begins."""

    @property
    def queue(self) -> str:
        """The name of the queue: the set of labels, sorted."""
        return " ".join(sorted(self.labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt, or the whole effect, failed.

    ``retry_after`` is seconds, None leaves it to the policy; ``cost`` is what it cost all the same, in dollars,
    ``usage`` what it used, by kind; None: nobody knows.
    """

    reason: str
    kind: str = "error"
    retryable: bool = False
    retry_after: float | None = None
    partial: str | None = None
    cost: str | None = None
    usage: Mapping[str, int] | None = None


class Started(Event):
    """A hand took the item; appended with the claim."""

    attempt: int
    by: str


class AttemptFailed(Event):
    """An attempt failed; the queue tries again after ``retry_in`` seconds."""

    attempt: int
    reason: str
    kind: str = "error"
    retry_in: float | None = None
    cost: str | None = None


class Failed(Event):
    """The effect failed for good. ``kind`` ``unknown`` means: it may have run, in part or in full."""

    reason: str
    kind: str = "error"
    attempts: int = 0
    cost: str | None = None


class Cancelled(Event):
    """The effect was asked to end and did."""

    reason: str = ""


class Superseded(Event):
    """A late result of a lost lease, kept for the record; it ends nothing."""

    attempt: int
    result_topic: str
    result: dict[str, Any]


class CancelRequested(Event):
    """A brain asks for an intent's end: ``intent_id`` is the intent's event id."""

    intent_id: str
    reason: str = ""


_TEMPLATES: Final[dict[str, type[Event]]] = {
    "started": Started,
    "attempt_failed": AttemptFailed,
    "failed": Failed,
    "cancelled": Cancelled,
    "superseded": Superseded,
    "cancel_requested": CancelRequested,
}


_families: set[str] = set()
_made_classes: dict[str, type[Event]] = {}


class Intent(Event):
    """An event that asks for an effect: ``class MailRequested(Intent, topic="mail.requested")``.

    Its family is the topic without its last part: the queue appends ``mail.started``,
    ``mail.attempt_failed``, and one end: the hand's result, ``mail.failed`` or ``mail.cancelled``.
    Family members that have no class get one from the templates of this module.
    """

    RESULTS: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, topic: str = "", version: int = 1, results: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(topic=topic, version=version, **kwargs)
        cls.RESULTS = results
        if topic:
            _families.add(cls.family())

    @classmethod
    def family(cls) -> str:
        """The topic without its last part."""
        return cls.TOPIC.rpartition(".")[0]

    @classmethod
    def ends(cls) -> tuple[str, ...]:
        """Every topic that ends this intent: its results, ``failed`` and ``cancelled``."""
        return (*cls.RESULTS, f"{cls.family()}.failed", f"{cls.family()}.cancelled")

    def work(self) -> WorkPolicy | None:
        """How the queue treats it; None: nobody needs to act (a pure function of the body)."""
        return WorkPolicy(labels=(self.family(),))

    def started(self, *, attempt: int, by: str) -> Event:
        """What is appended with the claim."""
        return lifecycle(self.family(), "started")(attempt=attempt, by=by)

    def attempt_failed(self, failure: Failure, *, attempt: int, retry_in: float | None) -> Event:
        """What is appended when an attempt failed and another will follow."""
        cls = lifecycle(self.family(), "attempt_failed")
        return cls(attempt=attempt, reason=failure.reason, kind=failure.kind, retry_in=retry_in, cost=failure.cost)

    def failed(self, failure: Failure, *, attempts: int) -> Event:
        """The end without a result."""
        cls = lifecycle(self.family(), "failed")
        return cls(reason=failure.reason, kind=failure.kind, attempts=attempts, cost=failure.cost)

    def cancelled(self, reason: str) -> Event:
        """The end that was asked for."""
        return lifecycle(self.family(), "cancelled")(reason=reason)

    def superseded(self, result: Event, *, attempt: int) -> Event:
        """What is kept of a late result."""
        cls = lifecycle(self.family(), "superseded")
        return cls(attempt=attempt, result_topic=result.TOPIC, result=result.model_dump(mode="json"))

    def due(self) -> Event:
        """What time appends when the delay of an intent that waits for time has passed."""
        return lifecycle(self.family(), "fired")()


def lifecycle(family: str, word: str) -> Callable[..., Event]:
    """The class of ``family.word``, made from the template where nobody defined one."""
    topic = f"{family}.{word}"
    return event_class(topic) or _made(topic, _TEMPLATES.get(word, Event))


def lifecycle_class(topic: str) -> type[Event] | None:
    """The class of a lifecycle event of an intent known here: the same in every process, whoever appended it."""
    family, _, word = topic.rpartition(".")
    template = _TEMPLATES.get(word)
    return None if template is None or family not in _families else _made(topic, template)


def _made(topic: str, template: type[Event]) -> type[Event]:
    # It claims no topic: whoever defines a class of their own later has it.
    cls = _made_classes.get(topic)
    if cls is None:
        name = "".join(part.title() for part in topic.replace(".", "_").split("_"))
        cls = type(name, (template,), {"__module__": __name__, "__doc__": template.__doc__})
        cls.TOPIC = topic
        _made_classes[topic] = cls
    return cls


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON."""
    return rfc8785.dumps(value)


def effect_key(kind: str, name: str, payload: Any, *, previous: str = "", tree: str = "") -> str:
    """The digest that matches an effect with its recordings: kind, name, canonical input, and

    ``previous`` (a model call's conversation so far) or ``tree`` (the workspace a tool starts from).
    It matches recordings only; the idempotency key for the outside world is the intent's event id.
    """
    parts = [kind, name, previous, tree, canonical(payload).decode()]
    return sha256(canonical(parts)).hexdigest()
