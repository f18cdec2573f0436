"""Everything that can go wrong with a model call, played by the server, is a failure that says what to do next."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from typing import Any

import pytest

from agents.model import ModelFailure, ModelReply
from agents.models.anthropic import AnthropicModel
from tests.integration.anthropic_client import KEY, READ, TEXT, ask, failure_of, reply_to, serving
from tests.integration.test_anthropic import _no_proxy
from tests.support.messages_server import Connection, MessagesServer, error, events_of, hang, reply, stream
from tests.support.patience import WITHIN

__all__ = ["_no_proxy"]


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (402, "billing_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (408, "timeout_error", True),
        (409, "conflict_error", True),
        (413, "request_too_large", False),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (503, "api_error", True),
        (529, "overloaded_error", True),
    ],
)
async def test_a_status_is_a_kind_and_a_verdict(status: int, kind: str, retryable: bool) -> None:
    """The API's error type is the kind; the status says whether another attempt may help."""
    failed = await failure_of(error(status, kind, "not now"))
    assert (failed.kind, failed.retryable, failed.retry_after) == (kind, retryable, None)
    assert failed.reason == f"HTTP {status} {kind}: not now"
    assert (failed.provider_request_id, failed.partial, failed.usage) == ("req_011", None, None)


async def test_one_call_is_one_attempt() -> None:
    """The client never retries by itself: attempts are the queue's, and each is an event."""
    async with serving(error(529, "overloaded_error"), reply(TEXT)) as (server, model):
        assert isinstance(await model.respond(ask()), ModelFailure)
        assert len(server.seen) == 1
        assert isinstance(await model.respond(ask(attempt=2)), ModelReply)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
async def test_the_server_says_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    """retry-after-ms goes before retry-after; what is no number, no date, is as if it were not there."""
    assert (await failure_of(error(429, "rate_limit_error", headers=headers))).retry_after == seconds


async def test_retry_after_may_be_a_date() -> None:
    """A date is turned into the seconds until then."""
    headers = {"retry-after": email.utils.formatdate(time.time() + 90, usegmt=True)}
    waits = (await failure_of(error(503, "api_error", headers=headers))).retry_after
    assert waits is not None
    assert 80 < waits <= 90


@pytest.mark.parametrize(
    ("status", "says", "retryable"), [(429, "false", False), (400, "true", True), (500, "false", False)]
)
async def test_x_should_retry_goes_before_the_status(status: int, says: str, retryable: bool) -> None:
    """A spend limit is a 429 that no wait mends; the server says so."""
    play = error(status, "rate_limit_error", code="enforced_spend_limit_reached", headers={"x-should-retry": says})
    failed = await failure_of(play)
    assert failed.retryable is retryable
    assert "(enforced_spend_limit_reached)" in failed.reason


async def test_an_answer_that_is_not_the_apis_is_a_failure_by_its_status() -> None:
    """A proxy's own error page has no type: the status gives one."""

    async def page(connection: Connection) -> None:
        await connection.head(502, "text/html")
        await connection.chunk(b"<h1>Bad gateway</h1>")
        await connection.chunk(b"")

    failed = await failure_of(page)
    assert (failed.kind, failed.retryable) == ("api_error", True)


async def test_a_body_that_cannot_be_decoded_is_a_failed_attempt() -> None:
    """A proxy that says gzip and sends text has sent no stream."""

    async def garbled(connection: Connection) -> None:
        await connection.head(200, "text/event-stream", {"content-encoding": "gzip"})
        await connection.chunk(b"event: message_start\n\n")
        await connection.chunk(b"")

    failed = await failure_of(garbled)
    assert (failed.kind, failed.retryable) == ("malformed_stream", True)


@pytest.mark.parametrize(("key", "scheme"), [(KEY, "htp"), (f"{KEY}\nX", "http")])
async def test_what_can_never_be_sent_is_final(key: str, scheme: str) -> None:
    """An address or a key that is none fails for good, as no attempt will mend it, and the key is not shown."""
    async with MessagesServer() as server:
        model = AnthropicModel(api_key=key, base_url=server.url.replace("http", scheme), timeout=WITHIN)
        failed = await model.respond(ask())
        await model.aclose()
    assert isinstance(failed, ModelFailure)
    assert (failed.kind, failed.retryable) == ("client_error", False)
    assert KEY not in failed.reason


WHOLE = events_of([TEXT, READ], stop_reason="tool_use")
START, TEXT_BLOCK = WHOLE[0], WHOLE[:5]


@pytest.mark.parametrize("events", range(len(WHOLE)))
@pytest.mark.parametrize("then", ["end", "cut", "reset"])
async def test_a_stream_without_message_stop_is_a_failed_attempt(events: int, then: str) -> None:
    """Wherever the stream ends, cleanly, by a closed or by a reset connection: retryable, never a reply."""
    failed = await failure_of(stream(WHOLE[:events], then=then))
    assert failed.kind == ("incomplete_stream" if then == "end" else "connection_error")
    assert failed.retryable
    pieces = [event["delta"].get("text", "") for event in WHOLE[:events] if event["type"] == "content_block_delta"]
    assert failed.partial == ("".join(pieces) or None)


async def test_what_was_spent_on_a_broken_stream_is_known() -> None:
    """The tokens counted before the break are reported with their cost: they are paid for."""
    failed = await failure_of(stream(TEXT_BLOCK, then="cut"))
    assert failed.usage is not None
    assert (failed.usage.input_tokens, failed.usage.output_tokens) == (10, 1)
    assert failed.charge is not None


@pytest.mark.parametrize(
    ("kind", "retryable"), [("overloaded_error", True), ("api_error", True), ("invalid_request_error", False)]
)
async def test_an_error_event_in_mid_stream_has_its_own_kind(kind: str, retryable: bool) -> None:
    """An error inside a stream that began with 200 is reported by its type, with the text so far."""
    told: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": "sorry"}}
    failed = await failure_of(stream([*TEXT_BLOCK, told]))
    assert (failed.kind, failed.retryable, failed.partial) == (kind, retryable, TEXT["text"])
    assert failed.reason == f"{kind} in mid-stream: sorry"


def _input(text: str, *, stop_reason: str = "tool_use") -> list[dict[str, Any]]:
    """A message whose only tool's input is streamed as ``text``."""
    events = events_of([{**READ, "input": {}}], stop_reason=stop_reason)
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}}
    return [*events[:3], delta, *events[-3:]]


@pytest.mark.parametrize("text", ['{"path": "a', "[1]", "nonsense"])
async def test_a_malformed_tool_input_is_worth_another_attempt(text: str) -> None:
    """A tool is never run on an input that is no JSON object."""
    failed = await failure_of(stream(_input(text)))
    assert (failed.kind, failed.retryable) == ("malformed_tool_input", True)
    assert "'read'" in failed.reason
    assert failed.usage is not None
    assert failed.usage.output_tokens == 7


async def test_max_tokens_inside_a_tool_input_says_what_to_change() -> None:
    """The same request would be cut off again, so it is not retried; the remedy is in the reason."""
    failed = await failure_of(stream(_input('{"path": "a', stop_reason="max_tokens")))
    assert (failed.kind, failed.retryable) == ("max_tokens_in_tool_use", False)
    assert "more max_tokens" in failed.reason


async def test_unknown_events_and_deltas_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """A newer API may say more than this version knows: the reply stands, and a line says what was left out."""
    news = {"type": "weather", "sunny": True}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "colour_delta", "colour": "red"}}
    with caplog.at_level("INFO"):
        got = await reply_to(stream([*WHOLE[:4], news, delta, b": a comment\n\n", *WHOLE[4:]]))
    assert got.message["content"] == [TEXT, READ]
    assert "kinds=['colour_delta', 'weather']" in caplog.text


@pytest.mark.parametrize(
    "events",
    [
        [b"event: message_start\ndata: {nonsense\n\n"],
        [b"event: message_start\ndata: [1]\n\n"],
        [b"event: message_start\ndata: {}\n\n"],
        [b"event: message_start\ndata: \xff\xfe\n\n"],
        [{"type": "message_start"}],
        [START, START],
        [{"type": "content_block_start", "index": 0, "content_block": TEXT}],
        [START, {"type": "content_block_start", "index": 4, "content_block": TEXT}],
        [START, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}],
        [START, {"type": "content_block_start", "index": 0, "content_block": "text"}],
        [START, {"type": "message_stop"}],
    ],
)
async def test_a_stream_of_nonsense_is_a_failed_attempt(events: list[dict[str, Any] | bytes]) -> None:
    """What makes no message is never patched up into one."""
    failed = await failure_of(stream(events))
    assert (failed.kind, failed.retryable) == ("malformed_stream", True)


@pytest.mark.parametrize("play", [hang, stream(TEXT_BLOCK, then="hang")])
async def test_a_silent_server_is_a_timeout(play: Any) -> None:
    """Silence before the first byte or between two ends the attempt after the timeout."""
    failed = await failure_of(play, timeout=0.05)
    assert (failed.kind, failed.retryable) == ("timeout_error", True)


async def test_nobody_listening_is_a_connection_error() -> None:
    """A server that is not there may be there later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        model = AnthropicModel(api_key=KEY, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout=WITHIN)
        failed = await model.respond(ask())
        await model.aclose()
    assert isinstance(failed, ModelFailure)
    assert (failed.kind, failed.retryable) == ("connection_error", True)


@pytest.mark.parametrize("play", [hang, stream(TEXT_BLOCK, then="hang")])
async def test_cancelling_closes_the_connection(play: Any) -> None:
    """A cancelled call hangs up at once, before its first byte and in mid-stream, and the cancellation passes."""
    async with serving(play) as (server, model):
        heard = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(model.respond(ask(), on_text=lambda _: heard.set()))
            await server.arrived.wait()
            if play is not hang:
                await heard.wait()
            call.cancel()
        assert call.cancelled()
        async with asyncio.timeout(WITHIN):
            await server.hung_up.wait()


async def test_the_key_is_never_told() -> None:
    """A server that echoes the credential does not get it into a failure's reason."""
    failed = await failure_of(error(401, "authentication_error", f"invalid key {KEY}"))
    assert KEY not in repr(failed)
    assert "[key]" in failed.reason
