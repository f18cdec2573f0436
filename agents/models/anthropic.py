"""Claude, and whatever else speaks the Messages API (Ollama does), through Anthropic's own client.

It owns one attempt: send, stream, fold, and turn whatever happens into a reply or a failure. It
must not retry (``max_retries=0``: attempts belong to the queue, each is an event), and never lets
the key out of its hands: not into a log, not into a failure's reason.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

import anthropic
import httpx2

from agents.model import Charge, ModelFailure, ModelReply, ModelRequest, Usage
from agents.models.failures import fault_of, is_retryable_kind
from agents.models.fold import BrokenStream, MessageFold
from agents.prices import charge_for
from hive_bus.telemetry import get_logger

__all__ = ["AnthropicModel"]

_log = get_logger(__name__)
_CONNECT_TIMEOUT: Final = 10.0
_OWN_FIELDS: Final = frozenset({"max_tokens", "messages", "model", "stream", "system", "tools"})


class AnthropicModel:
    """The model port on the Messages API; see ``agents.model.Model`` for the guarantees.

    Args:
        api_key: The credential; nothing is looked up in the environment or in profile files.
        model: The model to ask when a request names none.
        base_url: The server; Anthropic's by default.
        timeout: Seconds that the server may stay silent, before its first byte and between two.
        clock: Seconds that only ever grow, for the time to the first content.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str = "",
        base_url: str | None = None,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key, self._model, self._clock = api_key, model, clock
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            max_retries=0,
            # The hive exports its own spans from the log; two of each would double every token sum.
            open_telemetry={"traces": False},
        )

    def __repr__(self) -> str:
        return f"AnthropicModel(model={self._model!r}, base_url={str(self._client.base_url)!r})"

    async def respond(
        self, request: ModelRequest, *, on_text: Callable[[str], None] | None = None
    ) -> ModelReply | ModelFailure:
        """Send the request once and fold what streams back."""
        taken = sorted(_OWN_FIELDS & request.params.keys())
        if taken:
            reason = f"params may not set {', '.join(taken)}: the request has fields of its own for that"
            return ModelFailure(reason=reason, kind="invalid_request_error", retryable=False)
        fold = MessageFold()
        try:
            return await self._attempt(request, fold, on_text)
        except (
            anthropic.AnthropicError,
            httpx2.HTTPError,
            httpx2.StreamError,
            httpx2.InvalidURL,
            BrokenStream,
        ) as error:
            return self._failed(error, fold)

    def charge(self, model: str, usage: Usage) -> Charge | None:
        """By the price table; an alias of a model has the price of the one it stands for, where the table knows it."""
        return charge_for(model.removeprefix("anthropic:") or self._model, usage)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.close()

    async def _attempt(
        self, request: ModelRequest, fold: MessageFold, on_text: Callable[[str], None] | None
    ) -> ModelReply:
        asked = self._clock()
        first: float | None = None
        async with await self._send(request) as stream:
            async for event in _events(stream):
                text = fold.feed(event)
                if first is None and fold.has_content:
                    first = self._clock() - asked
                if text and on_text is not None:
                    on_text(text)
                if fold.ended:
                    break
            request_id = stream.response.headers.get("request-id")
        return self._reply(fold, ttft=first, request_id=request_id)

    async def _send(self, request: ModelRequest) -> anthropic.AsyncStream[Any]:
        optional: dict[str, Any] = {}
        if request.system:
            optional["system"] = request.system
        if request.tools:
            optional["tools"] = request.tools
        stream: anthropic.AsyncStream[Any] = await self._client.messages.create(
            model=request.model.removeprefix("anthropic:") or self._model,
            max_tokens=request.max_tokens,
            messages=cast("Any", request.messages),
            stream=True,
            extra_body=dict(request.params) or None,
            **optional,
        )
        return stream

    def _reply(self, fold: MessageFold, *, ttft: float | None, request_id: str | None) -> ModelReply:
        message = fold.finish()
        usage, model = fold.usage, str(fold.model)
        if usage is None:
            raise BrokenStream("malformed_stream", "the message ended without usage")
        if fold.unknown:
            _log.info("model.stream_event_unknown", kinds=sorted(set(fold.unknown)), model=model)
        return ModelReply(
            message={"role": message["role"], "content": message["content"]},
            stop_reason=message["stop_reason"],
            usage=usage,
            model=model,
            charge=charge_for(model, usage),
            provider_request_id=request_id,
            ttft=ttft,
        )

    def _failed(self, error: Exception, fold: MessageFold) -> ModelFailure:
        fault = fault_of(error, now=time.time())
        usage = fold.usage
        return ModelFailure(
            # A server may echo what it was sent.
            reason=fault.reason.replace(self._key, "[key]"),
            kind=fault.kind,
            retryable=fault.retryable,
            retry_after=fault.retry_after,
            partial=fold.text or None,
            usage=usage,
            charge=charge_for(str(fold.model), usage) if usage else None,
            provider_request_id=fault.request_id,
        )


async def _events(stream: anthropic.AsyncStream[Any]) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream as the server sent them, before any model class drops a field it does not know."""
    async with contextlib.aclosing(cast("Any", stream.raw_events(stream.response))) as raw:
        try:
            async for sent in raw:
                if not sent.data:
                    continue
                event = _parsed(sent.data)
                if sent.event == "error" or event["type"] == "error":
                    raise _told(event)
                yield event
        except UnicodeDecodeError as error:
            raise BrokenStream("malformed_stream", "the stream is no UTF-8") from error


def _parsed(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise BrokenStream("malformed_stream", f"an event of the stream is no JSON: {error}") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BrokenStream("malformed_stream", "an event of the stream has no type")
    return event


def _told(event: dict[str, Any]) -> BrokenStream:
    error = event.get("error")
    facts = error if isinstance(error, dict) else {}
    kind = str(facts.get("type") or "api_error")
    reason = f"{kind} in mid-stream: {facts.get('message') or 'no message'}"
    return BrokenStream(kind, reason, retryable=is_retryable_kind(kind))
