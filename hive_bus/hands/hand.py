"""Hands: workers that perform effects. The port, and what a hand is told; the runner is in ``runner.py``."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hive_bus.budget import Amounts
from hive_bus.effects import Failure, Intent
from hive_bus.event import Event
from hive_bus.record import Record
from hive_bus.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class HandContext:
    """What a hand knows of the effect besides the intent.

    ``record`` is the intent as stored; its event id is the ``idempotency_key`` for the
    outside world. ``attempt`` counts claims from 1. ``touch`` says that the work is alive
    (it restarts a silent timeout). ``bus`` is there to read; a hand's events are its result.
    ``say`` and ``progress`` are for whoever watches right now, are kept nowhere, and may be called by any thread.
    """

    record: Record
    attempt: int
    worker: str
    bus: Any = field(repr=False)
    touch: Callable[[], None] = field(repr=False)
    voice: Voice | None = field(default=None, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The key given to the outside world."""
        return self.record.event_id

    def say(self, piece: str | bytes) -> None:
        """Let those hear a piece of text who watch; bytes are a command's output, as it prints it."""
        if self.voice is not None:
            self.voice.say(piece)

    def progress(self, text: str = "", *, fraction: float | None = None) -> None:
        """Tell those who watch how far it is, in a few words, and as a ``fraction`` from 0 to 1 where that is known."""
        if self.voice is not None:
            self.voice.progress(text, fraction)


class Hand(ABC):
    """Performs one kind of intent.

    Guarantees wanted of an implementation:
        ``perform`` returns a result event of the intent, or a :class:`Failure`. It may be
        cancelled at any await: then it stops what it can stop and lets ``CancelledError``
        pass. After a crash it may be called again, as the intent's effect class allows.
    """

    intent: type[Intent]
    queues: tuple[str, ...]
    """The queues it takes from (sets of labels, see ``WorkPolicy.queue``)."""
    concurrency: int = 8
    keeps_time: ClassVar[bool] = False
    """Whether it enforces the intent's running timeout itself."""

    @abstractmethod
    async def perform(self, intent: Any, ctx: HandContext) -> Event | Failure:
        """Do it."""

    async def reconcile(self, intent: Any, ctx: HandContext) -> Event | Failure | None:
        """Ask what became of an attempt that was cut off (class ``reconcilable``); None: it did not happen."""
        return Failure(reason="cut off between start and result: it may have run, in part or in full", kind="unknown")

    def inline(self, intent: Any) -> bool:
        """Whether ``perform`` is pure and returns without waiting: claim and result then share one append, and no limit counts."""
        return False

    def keys(self, intent: Any) -> tuple[str, ...]:
        """Keys of limits that the effect counts for besides its queue's labels, the most particular first."""
        return ()

    def estimate(self, intent: Any) -> float:
        """How many tokens it will take, roughly; asked only where tokens are limited."""
        return 0.0

    def used(self, intent: Any, outcome: Event | Failure) -> float | None:
        """How many tokens it took; None: nobody knows, the estimate stands."""
        return None

    async def most(self, intent: Any, ctx: HandContext) -> Amounts | None:
        """What it may use at most, which budgets set aside before it begins; None: budgets do not count it. Asked only where there is one."""
        return None

    def spent(self, intent: Any, outcome: Event | Failure) -> Amounts:
        """What it used of that, but for the time; ``usd`` None: nobody knows, what was set aside counts."""
        return Amounts()


Performer = Callable[[Any, HandContext], Event | Failure | Awaitable[Event | Failure]]


class FunctionHand(Hand):
    """A hand made of a function ``(intent, ctx) -> result event | Failure``, async or not."""

    def __init__(
        self, intent: type[Intent], function: Performer, *, queues: tuple[str, ...] = (), concurrency: int = 8
    ) -> None:
        self.intent = intent
        self.queues = queues or (intent.family(),)
        self.concurrency = concurrency
        self._function = function

    async def perform(self, intent: Any, ctx: HandContext) -> Event | Failure:
        """Call the function."""
        outcome = self._function(intent, ctx)
        return await outcome if inspect.isawaitable(outcome) else outcome


def hand(
    intent: type[Intent], *, queues: tuple[str, ...] = (), concurrency: int = 8
) -> Callable[[Performer], FunctionHand]:
    """Make a hand of a function: ``@hand(MailRequested)``. Queues default to the intent's family."""
    return lambda function: FunctionHand(intent, function, queues=queues, concurrency=concurrency)
