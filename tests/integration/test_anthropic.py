"""Claude through the real client, on a strict server over loopback: requests, replies and streaming."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from agents.model import ModelFailure, ModelReply
from agents.models import open_model
from agents.prices import PRICE_TABLE
from tests.integration.anthropic_client import KEY, READ, TEXT, TOOL, ask, failure_of, reply_to, serving
from tests.support.messages_server import MessagesServer, reply


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine must not stand between the client and loopback."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_reply_is_verbatim_and_priced() -> None:
    """Blocks, stop reason, usage, cost, the provider's id and the time to the first content are all there."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 7}
    got = await reply_to(reply(TEXT, READ, stop_reason="tool_use", usage=usage))
    assert got.message == {"role": "assistant", "content": [TEXT, READ]}
    assert (got.stop_reason, got.model, got.provider_request_id) == ("tool_use", "claude-sonnet-5-5", "req_011")
    assert (got.usage.input_tokens, got.usage.cache_read_tokens, got.usage.cache_write_tokens) == (10, 5, 2)
    assert got.usage.output_tokens == 7
    assert got.charge is not None
    # 10 at $2, 5 at $0.10, 2 at $2.50 and 7 at $10 a million.
    assert (got.charge.amount, got.charge.price_table) == ("0.0000955", PRICE_TABLE)
    assert got.ttft is not None
    assert got.ttft >= 0


async def test_what_is_sent_is_the_request() -> None:
    """Body and credential are those of the request; a further field of params is in the body."""
    request = ask(system="Be brief.", tools=(TOOL,), params={"tool_choice": {"type": "auto"}})
    async with serving() as (server, model):
        assert isinstance(await model.respond(request), ModelReply)
    (seen,) = server.seen
    assert seen.body == {
        "model": "claude-sonnet-5-5",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "go"}],
        "tools": [TOOL],
        "max_tokens": 64,
        "stream": True,
        "tool_choice": {"type": "auto"},
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"


async def test_text_arrives_in_pieces_that_join_to_the_reply() -> None:
    """on_text hears every piece of text, in order, and nothing else."""
    heard: list[str] = []
    async with serving(reply(TEXT, READ, TEXT, stop_reason="tool_use")) as (_, model):
        got = await model.respond(ask(), on_text=heard.append)
    assert isinstance(got, ModelReply)
    assert ("".join(heard), len([piece for piece in heard if piece])) == (got.text, 4)


async def test_a_session_with_tools_goes_on() -> None:
    """A reply sent back with its tool results is a conversation that the strict server takes."""
    async with serving(reply(TEXT, READ, stop_reason="tool_use"), reply(TEXT)) as (_, model):
        first = await model.respond(ask(tools=(TOOL,)))
        assert isinstance(first, ModelReply)
        result = {"type": "tool_result", "tool_use_id": first.tool_uses[0]["id"], "content": "1 + 1"}
        messages = ({"role": "user", "content": "go"}, first.message, {"role": "user", "content": [result]})
        assert isinstance(await model.respond(ask(*messages, tools=(TOOL,), turn=2)), ModelReply)


async def test_parallel_tool_uses_are_all_in_the_reply() -> None:
    """Two tools asked for at once are two blocks, in order."""
    second = {**READ, "id": "toolu_2", "input": {}}
    got = await reply_to(reply(READ, second, stop_reason="tool_use"))
    assert got.tool_uses == (READ, second)


async def test_a_refusal_is_a_reply() -> None:
    """The model refused: that is an answer, for the brain to judge."""
    got = await reply_to(reply(stop_reason="refusal"))
    assert (got.stop_reason, got.text) == ("refusal", "")


async def test_text_cut_off_by_max_tokens_is_a_reply() -> None:
    """Half a text is usable, and the stop reason says that it is half."""
    assert (await reply_to(reply(TEXT, stop_reason="max_tokens"))).stop_reason == "max_tokens"


async def test_an_unknown_model_has_no_price() -> None:
    """A local model answers as any other, without a charge."""
    got = await reply_to(reply(TEXT), ask(model="llama9"))
    assert (got.model, got.charge) == ("llama9", None)


ORPHAN = ({"role": "user", "content": "go"}, {"role": "assistant", "content": [READ]})
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "fields", "complaint"),
    [
        (ORPHAN, {}, "without `tool_result`"),
        ((*ORPHAN, {"role": "user", "content": "and?"}), {}, "without `tool_result`"),
        ((*ORPHAN, {"role": "user", "content": [RESULT, RESULT]}), {}, "a single result"),
        ((*ORPHAN, {"role": "user", "content": [TEXT, RESULT]}), {}, "must come first"),
        (({"role": "user", "content": [RESULT]},), {}, "unexpected `tool_use_id`"),
        (({"role": "user", "content": "go"}, {"role": "assistant", "content": [READ, READ]}), {}, "must be unique"),
        (({"role": "assistant", "content": "hi"},), {}, "first message"),
        (({"role": "user", "content": ""},), {}, "non-empty content"),
        (({"role": "user", "content": "go"},), {"max_tokens": 0}, "max_tokens"),
        (({"role": "user", "content": "go"},), {"tools": (TOOL, TOOL)}, "must be unique"),
        (({"role": "user", "content": "go"},), {"tools": ({"name": "a b"},)}, "does not match"),
        (({"role": "user", "content": "go"},), {"params": {"temperature": 0}}, "Extra inputs"),
    ],
)
async def test_what_the_api_refuses_is_a_final_failure(
    messages: tuple[dict[str, Any], ...], fields: dict[str, Any], complaint: str
) -> None:
    """A request that the API refuses is not tried again, and the reason is the API's."""
    failed = await failure_of(reply(TEXT), ask(*messages, **fields))
    assert (failed.kind, failed.retryable, failed.provider_request_id) == ("invalid_request_error", False, "req_011")
    assert complaint in failed.reason


async def test_params_cannot_replace_fields_of_the_request() -> None:
    """What the request has a field for is not smuggled in beside it, and nothing is sent."""
    async with serving() as (server, model):
        failed = await model.respond(ask(params={"model": "other", "stream": False}))
    assert isinstance(failed, ModelFailure)
    assert (failed.kind, failed.retryable, server.seen) == ("invalid_request_error", False, [])
    assert "model, stream" in failed.reason


@pytest.mark.parametrize("name", ["claude-haiku-5-5", "anthropic:claude-haiku-5-5"])
async def test_open_model_finds_server_and_key_in_the_environment(name: str) -> None:
    """ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY are all it needs; the opened name is the default model."""
    async with MessagesServer() as server:
        model = open_model(name, environ={"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url})
        async with contextlib.aclosing(model):
            got = await model.respond(ask(model=""))
        await model.aclose()
    assert isinstance(got, ModelReply)
    assert got.model == "claude-haiku-5-5"
    assert KEY not in repr(model)
