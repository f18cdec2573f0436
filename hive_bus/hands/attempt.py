"""One attempt of an effect: what was claimed, and what comes of letting a hand perform it.

Whatever a hand does is an outcome here: a result, or a failure by the effect's class.
It knows hands and policies, and nothing of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from hive_bus.bus import Bus
from hive_bus.effects import EffectClass, Failure, Intent, WorkPolicy
from hive_bus.event import Event
from hive_bus.hands.hand import Hand, HandContext
from hive_bus.record import Record
from hive_bus.telemetry import get_logger
from hive_bus.voice import Voice

LONGEST_BACKOFF = 300.0
LOST = "lost"
"""The kind of a failure whose process died: it says nothing about the effect."""
PAGE = 1000
CUT = (".attempt_failed", ".failed", ".cancelled")
"""How the topics end of what ends an attempt that runs."""
ASKED = ".cancel_requested"
"""And of what asks for that."""

_log = get_logger(__name__)


class Claimed(NamedTuple):
    """An item this process holds: its intent, and the fence under which it may be ended."""

    work_id: str
    record: Record
    intent: Intent
    policy: WorkPolicy
    hand: Hand
    fence: int
    attempt: int


async def perform(claimed: Claimed, ctx: HandContext) -> Event | Failure:
    """The hand's outcome, and meanwhile a voice for the hand; whatever it raises is a failure by the effect's class."""
    task = str(getattr(claimed.intent, "task_id", ""))
    voice = Voice(ctx.bus.signals, claimed.record, task=task, attempt=claimed.attempt)
    try:
        return await _performed(claimed, replace(ctx, voice=voice))
    finally:
        voice.close()


async def _performed(claimed: Claimed, ctx: HandContext) -> Event | Failure:
    policy, hand, intent = claimed.policy, claimed.hand, claimed.intent
    limit = asyncio.timeout(None if hand.keeps_time else policy.running_timeout)
    try:
        async with limit:
            # What can be asked is asked before it is tried again.
            if claimed.attempt > 1 and policy.effect is EffectClass.RECONCILABLE:
                known = await hand.reconcile(intent, ctx)
                if known is not None:
                    return known
            return await hand.perform(intent, ctx)
    except Exception as problem:  # noqa: BLE001 - a hand's mistake is an outcome of its effect, the process stays up
        if isinstance(problem, TimeoutError) and limit.expired():
            repeatable = policy.effect is not EffectClass.UNSAFE
            reason = f"no result within {policy.running_timeout} s"
            return Failure(reason=reason, kind="timeout" if repeatable else "unknown", retryable=repeatable)
        return raised(claimed, problem)


def raised(claimed: Claimed, problem: Exception) -> Failure:
    """What a hand raised means: its effect class says whether it may be tried again."""
    _log.exception("hand.raised", topic=claimed.record.topic, error=str(problem))
    repeatable = claimed.policy.effect is not EffectClass.UNSAFE
    kind = "error" if repeatable else "unknown"
    return Failure(reason=f"{type(problem).__name__}: {problem}", kind=kind, retryable=repeatable)


async def lost_attempts(bus: Bus, intent: Record) -> int:
    """How many attempts of an effect ended because their process did, as the intent's stream tells."""
    topic, after, lost = f"{intent.topic.rpartition('.')[0]}.attempt_failed", intent.version, 0
    while page := await bus.store.log.read_stream(intent.stream, after=after, limit=PAGE):
        after = page[-1].version
        mine = (Record._make(row) for row in page if row.topic == topic and row.causation_id == intent.event_id)
        lost += sum(record.data.get("kind") == LOST for record in mine)
    return lost


def interruptions(intents: Iterable[type[Intent]]) -> set[str]:
    """The topics that end, or ask to end, an attempt of these intents and of what is derived from them."""
    found: set[str] = set()
    for intent in intents:
        found.update(intent.family() + word for word in (*CUT, ASKED))
        found |= interruptions(intent.__subclasses__())
    return found


def backoff(claimed: Claimed, failure: Failure, jitter: float) -> float:
    """How many seconds the queue waits: what the failure says, else twice as long each time, less up to a quarter."""
    if failure.retry_after is not None:
        return failure.retry_after
    wait = min(claimed.policy.backoff * 2.0 ** (claimed.attempt - 1), LONGEST_BACKOFF)
    return wait * (0.75 + 0.25 * jitter)
