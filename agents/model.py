"""The port to language models: one request in, one reply or one failure out.

The canonical wire form is Anthropic's Messages JSON: messages, content blocks and
tools are kept exactly as a provider gave them, so that a reply in the log is what
the model said, and can be sent back as it is. This module owns the words; it must
not know any provider, event or brain, and reads neither files nor the environment,
so that brains may use its words. ``agents.models.open_model`` opens a model by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Charge", "Model", "ModelFailure", "ModelReply", "ModelRequest", "Usage", "text_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What to send to a model, and who asks.

    Attributes:
        model: The provider's name of the model, without the ``anthropic:`` prefix.
        system: The system prompt; empty for none.
        messages: Messages-API messages, oldest first, starting with a user's.
        tools: Messages-API tool definitions (``name``, ``description``, ``input_schema``).
        max_tokens: The most tokens that the reply may have.
        params: Further fields of the request's body, such as ``tool_choice`` or ``thinking``.
        role: Who asks: ``planner``, ``reviewer``, ``drone`` or a brain of your own.
        task: The task it is about; None when it is about the run as a whole.
        turn: Which call of this session, from 1.
        attempt: Which attempt of this very call, from 1: the queue counts it.
        try_number: Which try of the task, from 1: the queen counts it.
    """

    model: str
    messages: tuple[dict[str, Any], ...]
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int = 8192
    params: Mapping[str, Any] = field(default_factory=dict)
    role: str
    task: str | None = None
    turn: int = 1
    attempt: int = 1
    try_number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them.

    ``input_tokens`` is only the part that was neither read from nor written to a
    cache, as Anthropic gives it; ``total_input_tokens`` is everything that was sent.
    ``cache_write_1h_tokens`` are those of ``cache_write_tokens`` that are kept for an hour, at a higher price.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def total_input_tokens(self) -> int:
        """All input tokens, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a call cost: ``amount`` in US dollars as a decimal string, and the price table it comes from."""

    amount: str
    price_table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A whole answer of a model; a part of one is always a ``ModelFailure``.

    Attributes:
        message: ``{"role": "assistant", "content": [blocks]}``, the blocks verbatim.
        stop_reason: ``end_turn``, ``tool_use``, ``max_tokens``, ``stop_sequence``, ``pause_turn``,
            ``refusal``, ``model_context_window_exceeded``, or a newer one of the provider.
        usage: The tokens it took.
        model: The model that answered, as it names itself.
        charge: What it cost; None when no price is known.
        provider_request_id: The provider's id of the call, for its support.
        ttft: Seconds from the request to the first content; None when nothing was streamed.
    """

    message: dict[str, Any]
    stop_reason: str
    usage: Usage
    model: str
    charge: Charge | None = None
    provider_request_id: str | None = None
    ttft: float | None = None

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return text_of(self.message["content"])

    @property
    def tool_uses(self) -> tuple[dict[str, Any], ...]:
        """The ``tool_use`` blocks in order, each with a complete input."""
        return tuple(block for block in self.message["content"] if block.get("type") == "tool_use")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailure:
    """An attempt that gave no whole answer.

    Attributes:
        reason: One sentence for people; holds no credential.
        kind: The provider's error type (``overloaded_error``, ``rate_limit_error``, ...), or one of
            ``connection_error``, ``timeout_error``, ``incomplete_stream``, ``malformed_stream``,
            ``malformed_tool_input``, ``max_tokens_in_tool_use``, ``missing_answer``.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds that the provider asks to wait; None when it does not say.
        partial: The text that had arrived; None when there was none.
        usage: Tokens spent all the same, as far as known.
        charge: What they cost, as far as known.
        provider_request_id: The provider's id of the call, for its support.
    """

    reason: str
    kind: str
    retryable: bool
    retry_after: float | None = None
    partial: str | None = None
    usage: Usage | None = None
    charge: Charge | None = None
    provider_request_id: str | None = None


class Model(Protocol):
    """Something that answers requests.

    Guarantees:
        - An outcome is a value: whatever provider or network do, ``respond`` returns a reply or a
          failure. It raises only what nobody planned, and lets ``asyncio.CancelledError`` pass.
        - A reply is whole: the provider said that the message ended, and every ``tool_use`` has an
          input that parsed. Anything less is a failure with the text so far in ``partial``.
        - One call is one attempt: an implementation never retries, for attempts belong to the queue.
        - ``on_text`` gets pieces of text in order, none after ``respond`` has ended; what it raises
          is not caught. The reply's text is exactly these pieces, joined.
        - Cancelling ``respond`` closes the connection of that call before it raises.
        - Calls may run side by side. ``aclose`` may be called twice; no call may follow it.
    """

    async def respond(
        self, request: ModelRequest, *, on_text: Callable[[str], None] | None = None
    ) -> ModelReply | ModelFailure:
        """Answer one request, once; see the guarantees."""
        ...

    def charge(self, model: str, usage: Usage) -> Charge | None:
        """What so much would cost, of the model that a request may name; None when no price is known."""
        ...

    async def aclose(self) -> None:
        """Close what the model holds open, such as pooled connections."""
        ...


def text_of(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The text of the text blocks among ``blocks``, joined."""
    return "".join(block["text"] for block in blocks if block.get("type") == "text")
