"""The hands of the sample shop, and the world that they change."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hive_bus.effects import Failure
from hive_bus.event import Event
from hive_bus.hands.hand import Hand, HandContext
from tests.support.sample_brain import ChargeMade, ChargeRequested, PickDone, PickRequested, ShipRequested, ShipSent


@dataclass(slots=True)
class World:
    """What was really done, by the key of its effect: it outlives every process."""

    charges: Counter[str] = field(default_factory=Counter)
    parcels: dict[str, str] = field(default_factory=dict)
    picks: Counter[str] = field(default_factory=Counter)


class Moods:
    """How hands behave: how long they take, and how often they fail, raise or hang."""

    def __init__(self, random: Random, *, trouble: float = 0.1, seconds: float = 0.5) -> None:
        self._random = random
        self._trouble = trouble
        self._seconds = seconds

    async def take_time(self) -> None:
        """Work for a while; now and then for ever."""
        if self._random.random() < self._trouble / 4:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._random.random() * self._seconds)

    def fails(self) -> Failure | None:
        """A failure, an exception or none."""
        chance = self._random.random()
        if chance < self._trouble / 2:
            raise OSError("the hand slipped")
        if chance < self._trouble:
            return Failure(reason="not this time", retryable=True)
        if chance < self._trouble * 1.1:
            return Failure(reason="never", retryable=False)
        return None


class Pick(Hand):
    """Fetches an item; doing it twice is doing it once."""

    intent = PickRequested
    queues = ("pick",)
    concurrency = 4

    def __init__(self, world: World, moods: Moods) -> None:
        self._world, self._moods = world, moods

    async def perform(self, intent: PickRequested, ctx: HandContext) -> Event | Failure:
        """Take a moment, perhaps fail."""
        await self._moods.take_time()
        self._world.picks[ctx.idempotency_key] += 1
        return self._moods.fails() or PickDone(shelf=len(intent.item))


class Charge(Hand):
    """Takes money: never twice."""

    intent = ChargeRequested
    queues = ("charge",)

    def __init__(self, world: World, moods: Moods) -> None:
        self._world, self._moods = world, moods

    async def perform(self, intent: ChargeRequested, ctx: HandContext) -> Event | Failure:
        """Take a moment before and after the money is taken."""
        await self._moods.take_time()
        self._world.charges[ctx.idempotency_key] += 1
        await self._moods.take_time()
        return ChargeMade(receipt=f"r{intent.amount}")


class Ship(Hand):
    """Sends parcels; the carrier can be asked whether it has one."""

    intent = ShipRequested
    queues = ("ship",)

    def __init__(self, world: World, moods: Moods) -> None:
        self._world, self._moods = world, moods

    async def perform(self, intent: ShipRequested, ctx: HandContext) -> Event | Failure:
        """Hand the parcels over, then fail or say which they were."""
        ctx.touch()
        await self._moods.take_time()
        self._world.parcels[ctx.idempotency_key] = f"{intent.parcels} parcels"
        await self._moods.take_time()
        return self._moods.fails() or ShipSent(parcel=self._world.parcels[ctx.idempotency_key])

    async def reconcile(self, intent: ShipRequested, ctx: HandContext) -> Event | Failure | None:
        """Ask the carrier."""
        known = self._world.parcels.get(ctx.idempotency_key)
        return None if known is None else ShipSent(parcel=known)


def shop_hands(world: World, moods: Moods) -> Sequence[Hand]:
    """One of each."""
    return [Pick(world, moods), Charge(world, moods), Ship(world, moods)]
