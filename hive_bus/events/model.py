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
    Intent,
    Started,
    Superseded,
    WorkPolicy,
)
from hive_bus.events.base import Fact


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
        )


class ModelStarted(Started, topic="model.started"):
    """A hand sends the request."""


class ModelResponded(Fact, topic="model.responded"):
    """The model's answer: ``message`` verbatim (role and content blocks), usage as the provider counts it.

    ``cost`` is dollars as decimal text, None where no price is known; ``input_tokens``
    are those neither read from nor written to the cache. ``ttft`` is seconds.
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


class ModelAttemptFailed(AttemptFailed, topic="model.attempt_failed"):
    """The call failed; the queue tries again."""


class ModelFailed(Failed, topic="model.failed"):
    """The call failed for good."""


class ModelCancelled(Cancelled, topic="model.cancelled"):
    """The call was given up on request."""


class ModelSuperseded(Superseded, topic="model.superseded"):
    """A late answer of a lost lease."""


class ModelCancelRequested(CancelRequested, topic="model.cancel_requested"):
    """The brain no longer wants the answer."""
