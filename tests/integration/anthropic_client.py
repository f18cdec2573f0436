"""The Claude model on a strict local server, and requests for it: what the tests of the model share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agents.model import ModelFailure, ModelReply, ModelRequest
from agents.models.anthropic import AnthropicModel
from tests.support.messages_server import MessagesServer, Play
from tests.support.patience import WITHIN

KEY = "sk-ant-secret-011"
TEXT = {"type": "text", "text": "Grüße, I look at it."}
READ = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "calc.py"}}
TOOL = {"name": "read", "description": "Read a file.", "input_schema": {"type": "object", "properties": {}}}


def ask(*messages: dict[str, Any], **fields: Any) -> ModelRequest:
    """A drone's request with these messages."""
    given = {"model": "claude-sonnet-5-5", "role": "drone", "task": "fix", "max_tokens": 64, **fields}
    return ModelRequest(messages=messages or ({"role": "user", "content": "go"},), **given)


@contextlib.asynccontextmanager
async def serving(*plays: Play, timeout: float = WITHIN) -> AsyncIterator[tuple[MessagesServer, AnthropicModel]]:
    """A server that plays these, and a model that asks it."""
    async with MessagesServer() as server:
        server.plays.extend(plays)
        model = AnthropicModel(api_key=KEY, base_url=server.url, timeout=timeout)
        async with contextlib.aclosing(model):
            yield server, model


async def reply_to(play: Play, request: ModelRequest | None = None) -> ModelReply:
    """The reply that the model makes of ``play``."""
    async with serving(play) as (_, model):
        outcome = await model.respond(request or ask())
    assert isinstance(outcome, ModelReply), outcome
    return outcome


async def failure_of(play: Play, request: ModelRequest | None = None, *, timeout: float = WITHIN) -> ModelFailure:
    """The failure that the model makes of ``play``."""
    async with serving(play, timeout=timeout) as (_, model):
        outcome = await model.respond(request or ask())
    assert isinstance(outcome, ModelFailure), outcome
    return outcome
