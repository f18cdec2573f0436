"""Model calls, in the stream of the brain that asks."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from hive_bus.effects import (
    AttemptFailed,
    Cancelled,
    CancelRequested,
    EffectClass,
    Failed,
    Failure,
    Intent,
    Started,
    Superseded,
    WorkPolicy,
)
from hive_bus.event import Event
from hive_bus.events.base import Fact
from hive_bus.upcasting import upcaster


class ModelRequested(Intent, topic="model.requested", results=("model.responded",)):
    """A brain asks a model. What is sent is all in the log: this intent and those before it in the conversation.

    ``conversation`` names the session within the stream (``planner``, ``drone``, ``review:fix.1``).
    The request is: ``system`` and ``tools`` of the conversation's first intent, then for each
    earlier turn its ``messages`` and the reply, then this turn's ``messages`` (Messages-API
    JSON). ``effect_key`` chains: digest of the previous key and what is new.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    conversation: str
    turn: int
    role: str
    task_id: str = ""
    try_number: int = 1
    model: str = ""
    system: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int = 8192
    params: dict[str, Any] = Field(default_factory=dict)
    effect_key: str = ""
    priority: int = 5
    timeout: float | None = 600.0

    def work(self) -> WorkPolicy:
        """A model call may be repeated: it costs money, but changes nothing."""
        return WorkPolicy(
            labels=("model",),
            priority=self.priority,
            effect=EffectClass.IDEMPOTENT,
            max_attempts=5,
            running_timeout=self.timeout,
            spends=True,
        )

    def attempt_failed(self, failure: Failure, *, attempt: int, retry_in: float | None) -> Event:
        """Says what was used all the same, and by whom."""
        return ModelAttemptFailed(
            attempt=attempt,
            reason=failure.reason,
            kind=failure.kind,
            retry_in=retry_in,
            cost=failure.cost,
            usage=None if failure.usage is None else dict(failure.usage),
            **self._asker(),
        )

    def failed(self, failure: Failure, *, attempts: int) -> Event:
        """Says what was used all the same, and by whom."""
        return ModelFailed(
            reason=failure.reason,
            kind=failure.kind,
            attempts=attempts,
            cost=failure.cost,
            usage=None if failure.usage is None else dict(failure.usage),
            **self._asker(),
        )

    def _asker(self) -> dict[str, Any]:
        return {"model": self.model, "role": self.role, "task_id": self.task_id, "try_number": self.try_number}


class ModelStarted(Started, topic="model.started"):
    """A hand sends the request."""


class ModelResponded(Fact, topic="model.responded", version=2):
    """The model's answer: ``message`` verbatim (role and content blocks), usage as the provider counts it.

    ``cost`` is dollars as decimal text, None where no price is known; ``input_tokens``
    are those neither read from nor written to the cache, ``cache_write_1h_tokens`` those of ``cache_write_tokens``
    that are kept for an hour. ``ttft`` is seconds. ``role``, ``task_id`` and ``try_number`` are the intent's, so that
    what it cost can be told from this event alone.
    """

    conversation: str = ""
    turn: int = 1
    message: dict[str, Any] = Field(default_factory=dict)
    stop_reason: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: str | None = None
    prices: str | None = None
    provider_request_id: str | None = None
    ttft: float | None = None
    cache_write_1h_tokens: int = 0
    role: str = ""
    task_id: str = ""
    try_number: int = 1


class ModelAttemptFailed(AttemptFailed, topic="model.attempt_failed", version=2):
    """The call failed; the queue tries again. ``usage`` is the tokens that it used all the same, named as in ``model.responded``."""

    usage: dict[str, int] | None = None
    model: str = ""
    role: str = ""
    task_id: str = ""
    try_number: int = 1


class ModelFailed(Failed, topic="model.failed", version=2):
    """The call failed for good; ``usage`` as for an attempt."""

    usage: dict[str, int] | None = None
    model: str = ""
    role: str = ""
    task_id: str = ""
    try_number: int = 1


class ModelCancelled(Cancelled, topic="model.cancelled"):
    """The call was given up on request."""


class ModelSuperseded(Superseded, topic="model.superseded"):
    """A late answer of a lost lease."""


class ModelCancelRequested(CancelRequested, topic="model.cancel_requested"):
    """The brain no longer wants the answer."""


def _unsaid(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 said less; what it left out has its default."""
    return data


for _cls in (ModelResponded, ModelAttemptFailed, ModelFailed):
    upcaster(_cls.TOPIC, from_version=1)(_unsaid)
