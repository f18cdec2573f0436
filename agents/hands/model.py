"""The hand that calls models: it builds the request from the log and refuses one that is not what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from agents.conversation import request_key
from agents.model import Model, ModelFailure, ModelReply, ModelRequest, Usage
from hive_bus import Event, Hand, HandContext, Record
from hive_bus.budget import Amounts
from hive_bus.effects import Failure
from hive_bus.events import ModelRequested, ModelResponded
from hive_bus.lineage import lineage, read_branch_stream

USUAL_ANSWER = 1024
"""Tokens: most answers are shorter; what is longer is settled afterwards."""
USUAL_TIME = 60.0
"""Seconds: what a call sets aside where time is limited."""
BYTES_PER_TOKEN = 3
REFUSED = frozenset({"rate_limit_error", "overloaded_error"})


class ModelHand(Hand):
    """Performs ``model.requested``. ``open_model`` opens a model by name; each is opened once and kept."""

    intent = ModelRequested
    queues = ("model",)

    def __init__(self, open_model: Callable[[str], Model], *, concurrency: int = 32) -> None:
        self.concurrency = concurrency
        self._open = open_model
        self._models: dict[str, Model] = {}

    def keys(self, intent: ModelRequested) -> tuple[str, ...]:
        """``model:<provider>:<name>`` and ``model:<provider>``."""
        provider, separator, _ = intent.model.partition(":")
        return (f"model:{intent.model}", f"model:{provider}") if separator else (f"model:{intent.model}",)

    def estimate(self, intent: ModelRequested) -> float:
        """Four letters to a token, of what this turn adds, and an answer of middling length."""
        letters = len(intent.system) + sum(len(str(part)) for part in (*intent.messages, *intent.tools))
        return letters / 4 + min(intent.max_tokens, USUAL_ANSWER)

    def used(self, intent: ModelRequested, outcome: Event | Failure) -> float | None:
        """What the provider counted, without what came from its cache; nothing for a call that it refused."""
        if isinstance(outcome, ModelResponded):
            return float(outcome.input_tokens + outcome.cache_write_tokens + outcome.output_tokens)
        return 0.0 if isinstance(outcome, Failure) and outcome.kind in REFUSED else None

    async def perform(self, intent: ModelRequested, ctx: HandContext) -> Event | Failure:
        """Send the conversation so far and this turn; the queue repeats what may succeed later."""
        turns = await conversation(ctx, intent)
        key = ""
        for turn, _ in turns:
            key = request_key(turn, previous=key)
        if intent.effect_key and key != intent.effect_key:
            return Failure(reason="the request in the log is not the one that was asked for", kind="digest_mismatch")
        request = build(turns, attempt=ctx.attempt)
        try:
            model = await self._model(intent.model)
        except Exception as problem:  # noqa: BLE001 - a model that cannot be opened is this call's failure, with the reason
            return Failure(reason=str(problem), kind="model_unavailable")
        outcome = await model.respond(request, on_text=ctx.say)
        return _failed(outcome) if isinstance(outcome, ModelFailure) else _responded(intent, outcome)

    async def most(self, intent: ModelRequested, ctx: HandContext) -> Amounts:
        """All that is sent, generously counted, and the longest answer that it may give."""
        turns = await conversation(ctx, intent)
        usage = Usage(input_tokens=_sent(turns), output_tokens=intent.max_tokens)
        try:
            charge = (await self._model(intent.model)).charge(intent.model, usage)
        except Exception:  # noqa: BLE001 - it will fail when it is called, at no cost, and say why
            return Amounts(tokens=usage.total_input_tokens + usage.output_tokens, calls=1)
        return Amounts(
            usd=None if charge is None else Decimal(charge.amount),
            tokens=usage.total_input_tokens + usage.output_tokens,
            calls=1,
            seconds=min(intent.timeout or USUAL_TIME, USUAL_TIME),
        )

    def spent(self, intent: ModelRequested, outcome: Event | Failure) -> Amounts:
        """What the provider counted, all of it; an attempt without an answer is no call, but what it used counts."""
        if isinstance(outcome, ModelResponded):
            cost = None if outcome.cost is None else Decimal(outcome.cost)
            sent = outcome.input_tokens + outcome.cache_read_tokens + outcome.cache_write_tokens
            return Amounts(usd=cost, tokens=sent + outcome.output_tokens, calls=1)
        if not isinstance(outcome, Failure) or outcome.usage is None:
            return Amounts()
        used = Usage(**outcome.usage)
        cost = None if outcome.cost is None else Decimal(outcome.cost)
        return Amounts(usd=cost, tokens=used.total_input_tokens + used.output_tokens)

    async def _model(self, name: str) -> Model:
        """The model of that name, opened once. Raises what opening it raises."""
        model = self._models.get(name)
        if model is None:
            # Off the loop: a provider's client takes a second to import.
            model = self._models[name] = await asyncio.to_thread(self._open, name)
        return model

    async def close(self) -> None:
        """Close what the models hold open."""
        for model in self._models.values():
            await model.aclose()
        self._models.clear()


Turn = tuple[ModelRequested, ModelResponded | None]


async def conversation(ctx: HandContext, intent: ModelRequested) -> list[Turn]:
    """The turns of the intent's conversation up to this one, each with its reply, read from its stream."""
    turns: list[Turn] = []
    places: dict[str, int] = {}
    log, run = ctx.bus.store.log, ctx.record.correlation_id
    within = ctx.record.stream.removeprefix(f"{run}/")
    async for page in read_branch_stream(log, await lineage(log, run), within):
        for row in page:
            record = Record._make(row)
            if row.position > ctx.record.position:
                return turns
            event = record.event if row.topic.startswith("model.") else None
            if isinstance(event, ModelRequested) and event.conversation == intent.conversation:
                # What was open when the run was forked is asked again in the branch.
                del turns[event.turn - 1 :]
                places[row.event_id] = len(turns)
                turns.append((event, None))
            elif isinstance(event, ModelResponded) and row.causation_id in places:
                place = places[row.causation_id]
                turns[place] = (turns[place][0], event)
    return turns


def _sent(turns: list[Turn]) -> int:
    """How many tokens are sent, or a little more: what the last reply counted, and three bytes to a token of what is new."""
    known, new = 0, 0
    for intent, reply in turns:
        new += sum(len(str(part).encode()) for part in (intent.system, *intent.messages, *intent.tools))
        if reply is not None:
            cached = reply.cache_read_tokens + reply.cache_write_tokens
            known, new = reply.input_tokens + cached + reply.output_tokens, 0
    return known + -(-new // BYTES_PER_TOKEN)


def build(turns: list[Turn], *, attempt: int) -> ModelRequest:
    """The request: the first turn's system prompt and tools, every turn's messages and reply, this turn's messages."""
    first, last = turns[0][0], turns[-1][0]
    messages: list[dict[str, Any]] = []
    for intent, reply in turns:
        messages.extend(intent.messages)
        if reply is not None and intent is not last:
            messages.append(reply.message)
    return ModelRequest(
        model=last.model.removeprefix("anthropic:"),
        system=first.system,
        messages=tuple(messages),
        tools=first.tools,
        max_tokens=last.max_tokens,
        params=last.params,
        role=last.role,
        task=last.task_id or None,
        turn=last.turn,
        attempt=attempt,
        try_number=last.try_number,
    )


def _responded(intent: ModelRequested, reply: ModelReply) -> ModelResponded:
    usage, charge = reply.usage, reply.charge
    return ModelResponded(
        conversation=intent.conversation,
        turn=intent.turn,
        message=reply.message,
        stop_reason=reply.stop_reason,
        model=reply.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cost=None if charge is None else charge.amount,
        prices=None if charge is None else charge.price_table,
        provider_request_id=reply.provider_request_id,
        ttft=reply.ttft,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        role=intent.role,
        task_id=intent.task_id,
        try_number=intent.try_number,
    )


def _failed(failure: ModelFailure) -> Failure:
    return Failure(
        reason=failure.reason,
        kind=failure.kind,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
        partial=failure.partial,
        cost=None if failure.charge is None else failure.charge.amount,
        usage=None if failure.usage is None else asdict(failure.usage),
    )
