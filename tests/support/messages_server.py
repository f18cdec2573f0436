"""A strict Messages API on loopback: it refuses what the real one refuses, and plays every fault in the book.

``async with MessagesServer() as server`` listens at ``server.url``; ``server.plays`` says what happens to
the next requests, one play each, a plain reply when none is left. ``server.seen`` holds what arrived.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tests.support.messages_rules import complaint_about

__all__ = ["Connection", "MessagesServer", "Play", "Seen", "error", "events_of", "hang", "reply", "stream"]

USAGE: Final = {"input_tokens": 10, "output_tokens": 7}
_REQUEST_ID: Final = "req_011"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class Connection:
    """One request and the socket that its answer goes to."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: MessagesServer

    async def head(self, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the status and the headers; the body follows in chunks."""
        lines = {
            "content-type": content_type,
            "transfer-encoding": "chunked",
            "connection": "close",
            "request-id": _REQUEST_ID,
            **(headers or {}),
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"HTTP/1.1 {status} Said\r\n{text}\r\n".encode())
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body; an empty one ends it."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole JSON answer."""
        await self.head(status, "application/json", headers)
        await self.chunk(json.dumps(body).encode())
        await self.chunk(b"")

    async def until_hung_up(self) -> None:
        """Say no more, until the client closes its side."""
        await self.reader.read()
        self.server.hung_up.set()

    def reset(self) -> None:
        """Drop the connection as a crashing host does: with a reset, not with an end."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Play = Callable[[Connection], Awaitable[None]]


def stream(events: Iterable[dict[str, Any] | bytes], *, then: str = "end") -> Play:
    """Stream events (raw bytes as they are), then ``end``, ``cut``, ``reset`` or ``hang``."""

    async def play(connection: Connection) -> None:
        await connection.head(200, "text/event-stream; charset=utf-8")
        for event in events:
            await connection.chunk(event if isinstance(event, bytes) else _sse(event))
        if then == "end":
            await connection.chunk(b"")
        elif then == "reset":
            connection.reset()
        elif then == "hang":
            await connection.until_hung_up()

    return play


def reply(*blocks: dict[str, Any], stop_reason: str = "end_turn", usage: Mapping[str, Any] | None = None) -> Play:
    """Answer with these content blocks, streamed or not as the request asks."""

    async def play(connection: Connection) -> None:
        body = connection.seen.body
        if body.get("stream"):
            await stream(events_of(blocks, stop_reason=stop_reason, usage=usage, model=body["model"]))(connection)
        else:
            message = {**_message(body["model"], usage), "content": list(blocks), "stop_reason": stop_reason}
            await connection.json(200, message)

    return play


def error(
    status: int, kind: str, message: str = "no", *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Play:
    """Refuse with an API error."""
    facts: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        facts["details"] = {"error_code": code}
    body = {"type": "error", "error": facts, "request_id": _REQUEST_ID}

    async def play(connection: Connection) -> None:
        await connection.json(status, body, headers)

    return play


async def hang(connection: Connection) -> None:
    """Take the request and never say a byte."""
    await connection.until_hung_up()


def events_of(
    blocks: Sequence[dict[str, Any]],
    *,
    stop_reason: str = "end_turn",
    usage: Mapping[str, Any] | None = None,
    model: str = "claude-sonnet-5-5",
) -> list[dict[str, Any]]:
    """The events of a whole message, with text and inputs in two pieces each."""
    counts = {**USAGE, **(usage or {})}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(model, {**counts, "output_tokens": 1})}
    ]
    events.append({"type": "ping"})
    for index, block in enumerate(blocks):
        events += _block_events(index, block)
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": counts["output_tokens"]}})
    events.append({"type": "message_stop"})
    return events


def _block_events(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    text = block.get("text", "") if block["type"] == "text" else json.dumps(block.get("input", {}))
    start = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
    half = len(text) // 2
    kind, word = ("text_delta", "text") if block["type"] == "text" else ("input_json_delta", "partial_json")
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *(
            {"type": "content_block_delta", "index": index, "delta": {"type": kind, word: piece}}
            for piece in (text[:half], text[half:])
        ),
        {"type": "content_block_stop", "index": index},
    ]


def _message(model: str, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "msg_011",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**USAGE, **(usage or {})},
    }


def _sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


@dataclass(slots=True)
class MessagesServer:
    """The server; ``arrived`` is set with the first request, ``hung_up`` is set when a client closed a connection that was not yet answered."""

    plays: deque[Play] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            seen = await _read(reader)
            self.seen.append(seen)
            self.arrived.set()
            await self._answer(Connection(seen, reader, writer, self))
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client left in the middle: the tests say so by `hung_up` or by the outcome they see.
            self.hung_up.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, connection: Connection) -> None:
        seen = connection.seen
        path = seen.path.partition("?")[0]
        if "authorization" not in seen.headers and "x-api-key" not in seen.headers:
            await error(401, "authentication_error", "no credential")(connection)
        elif path == "/v1/messages/count_tokens":
            await connection.json(200, {"input_tokens": len(json.dumps(seen.body)) // 4})
        elif path != "/v1/messages":
            await error(404, "not_found_error", f"no such path: {path}")(connection)
        elif "anthropic-version" not in seen.headers:
            await error(400, "invalid_request_error", "anthropic-version: header is required")(connection)
        elif complaint := complaint_about(seen.body):
            await error(400, "invalid_request_error", complaint)(connection)
        else:
            play = self.plays.popleft() if self.plays else reply({"type": "text", "text": "ok"})
            await play(connection)


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(head[0].split(" ")[1], headers, json.loads(body))
