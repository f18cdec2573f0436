"""The fold of a Messages-API stream: raw events in, one whole message out, or the reason why there is none.

It owns what the events mean, and keeps every field as the provider sent it; it must not know
a socket, a client or a price. Anthropic's own ``accumulate_event`` is the oracle of its tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agents.model import Usage

__all__ = ["BrokenStream", "MessageFold"]

_CUT_SHORT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})


class BrokenStream(Exception):
    """What arrived makes no whole message; ``kind`` is that of the failure to report."""

    def __init__(self, kind: str, reason: str, *, retryable: bool = True) -> None:
        super().__init__(reason)
        self.kind, self.retryable = kind, retryable


class MessageFold:
    """Takes a stream's events in order; ``finish`` gives the message once ``message_stop`` was seen.

    ``ended`` says whether it was, ``text`` is the text so far, ``usage`` the tokens so far
    (the counts of a stream are totals, so the last ones stand), ``model`` who answers.
    """

    __slots__ = ("_message", "_partial_json", "ended", "text", "unknown")

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._partial_json: dict[int, str] = {}
        self.ended = False
        self.text = ""
        self.unknown: list[str] = []

    @property
    def has_content(self) -> bool:
        """Whether a content block has begun."""
        return self._message is not None and bool(self._message["content"])

    @property
    def model(self) -> str | None:
        """The model as it names itself, once the message has begun."""
        return None if self._message is None else self._message.get("model")

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped, once it has said so."""
        return None if self._message is None else self._message.get("stop_reason")

    @property
    def usage(self) -> Usage | None:
        """The tokens so far, once the message has begun."""
        counts = None if self._message is None else self._message.get("usage")
        if not isinstance(counts, dict):
            return None
        kept = counts.get("cache_creation")
        return Usage(
            input_tokens=counts.get("input_tokens") or 0,
            output_tokens=counts.get("output_tokens") or 0,
            cache_read_tokens=counts.get("cache_read_input_tokens") or 0,
            cache_write_tokens=counts.get("cache_creation_input_tokens") or 0,
            cache_write_1h_tokens=(kept.get("ephemeral_1h_input_tokens") or 0) if isinstance(kept, dict) else 0,
        )

    def feed(self, event: Mapping[str, Any]) -> str:
        """Take the next event; return the text that it adds, which is mostly empty.

        Raises:
            BrokenStream: The event cannot follow what came before.
        """
        try:
            return self._feed(event)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BrokenStream(
                "malformed_stream", f"the event {event.get('type')!r} is malformed: {error!r}"
            ) from error

    def finish(self) -> dict[str, Any]:
        """The message: role, content, and every other field that the provider gave.

        Raises:
            BrokenStream: The stream broke off, or a tool's input is not whole.
        """
        if self._message is None or not self.ended:
            raise BrokenStream("incomplete_stream", "the stream ended before message_stop")
        if not isinstance(self.stop_reason, str):
            raise BrokenStream("malformed_stream", "the message ended without a stop reason")
        for index, text in self._partial_json.items():
            block = self._message["content"][index]
            if text:
                block["input"] = self._tool_input(block, text)
        return self._message

    def _feed(self, event: Mapping[str, Any]) -> str:
        kind = event["type"]
        if kind == "message_start":
            self._start(event["message"])
        elif kind == "message_stop":
            self.ended = True
        elif kind == "message_delta":
            self._end(event)
        elif kind == "content_block_start":
            return self._begin_block(event["index"], event["content_block"])
        elif kind == "content_block_delta":
            return self._extend_block(event["index"], event["delta"])
        elif kind not in {"ping", "content_block_stop"}:
            self.unknown.append(kind)
        return ""

    def _start(self, message: Mapping[str, Any]) -> None:
        if self._message is not None:
            raise BrokenStream("malformed_stream", "a second message_start")
        self._message = {**message, "content": [dict(block) for block in message["content"]]}
        if isinstance(message.get("usage"), dict):
            self._message["usage"] = dict(message["usage"])

    @property
    def _started(self) -> dict[str, Any]:
        if self._message is None:
            raise BrokenStream("malformed_stream", "content before message_start")
        return self._message

    def _begin_block(self, index: int, block: Mapping[str, Any]) -> str:
        content = self._started["content"]
        if index != len(content):
            raise BrokenStream("malformed_stream", f"content block {index} began where {len(content)} was due")
        content.append(dict(block))
        return self._heard(block["text"]) if block["type"] == "text" else ""

    def _extend_block(self, index: int, delta: Mapping[str, Any]) -> str:
        block = self._started["content"][index]
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
                return self._heard(delta["text"])
            case "input_json_delta":
                self._partial_json[index] = self._partial_json.get(index, "") + delta["partial_json"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            case other:
                self.unknown.append(other)
        return ""

    def _heard(self, text: str) -> str:
        self.text += text
        return text

    def _end(self, event: Mapping[str, Any]) -> None:
        message = self._started
        message.update({key: value for key, value in event["delta"].items() if value is not None})
        counts = {key: value for key, value in event.get("usage", {}).items() if value is not None}
        message["usage"] = {**message.get("usage", {}), **counts}

    def _tool_input(self, block: Mapping[str, Any], text: str) -> dict[str, Any]:
        name = block.get("name")
        try:
            value = json.loads(text)
        except ValueError as error:
            if self.stop_reason in _CUT_SHORT:
                raise BrokenStream(
                    "max_tokens_in_tool_use",
                    f"the reply was cut off by {self.stop_reason} inside the input of tool {name!r}; give it more max_tokens",
                    retryable=False,
                ) from error
            raise BrokenStream("malformed_tool_input", f"the input of tool {name!r} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise BrokenStream("malformed_tool_input", f"the input of tool {name!r} is no JSON object")
        return value
