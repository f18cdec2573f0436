"""A machine that sleeps: when it wakes all leases are over, but all who hold them live, and nobody takes anything from anybody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hive_bus.clock import Clock
from hive_bus.groups.member import GroupMember
from hive_bus.hands.hand import HandContext
from hive_bus.lease import RENEWALS, TTL, ProcessLease
from hive_bus.registry.enrolment import Enrolment
from hive_bus.registry.registry import Registry
from hive_bus.testing import SimulatedLoop, run_simulated
from tests.simulation.test_groups_rosters import Nothing
from tests.support.brains import Asked, Done, Trial, Try, bench, pass_time, simulated_bus

PROCESSES = 3
SLEEP = 60.0


class Held(NamedTuple):
    """What processes hold: the leases that live, who owns each partition under which fence, and what the log says of an effect and agents."""

    leases: set[str]
    partitions: list[tuple[int, str | None, int]]
    effect: list[str]
    agents: list[str]


@pytest.mark.parametrize("seed", range(5))
def test_everybody_keeps_what_it_has_over_a_sleep(tmp_path: Path, seed: int) -> None:
    """Partitions, presence and an unsafe effect under way: whoever wakes first neither takes nor judges what the others hold."""

    async def slow(intent: Try, ctx: HandContext) -> Any:
        await pass_time(2 * SLEEP)
        return Done()

    async def main(loop: SimulatedLoop) -> tuple[Held, Held, list[str]]:
        path = tmp_path / "h.db"
        async with AsyncExitStack() as stack, bench(loop, path, hands=[Trial(slow)]) as one:
            buses = [one.bus] + [await simulated_bus(loop, path, f"p{number}") for number in range(1, PROCESSES)]

            async def held() -> Held:
                rows = await one.bus.store.checkpoints.partitions("g")
                return Held(
                    {lease.lease_id for lease in await one.bus.store.leases.live()},
                    [(row.number, row.lease_id, row.fence) for row in rows],
                    [topic for topic in await one.topics() if topic.startswith("try.")],
                    [record.topic async for record in one.bus.read("agent.>")],
                )

            for bus in buses:
                await stack.enter_async_context(Registry(bus, [Enrolment(name=f"agent of {bus.source}")]))
                member = GroupMember(bus, group="g", patterns=(), key="stream", consumer=Nothing())
                one.serve(member, Clock(bus))
            await one.ask(Asked(effect="unsafe", max_attempts=1))
            await one.until("try.started")
            await pass_time(20.0)
            before = await held()
            loop.advance(SLEEP)
            await pass_time(SLEEP / 2)
            after = await held()
            await pass_time(2 * SLEEP)
            end = await one.topics()
            for service in one.services:
                service.cancel()
            await asyncio.gather(*one.services, return_exceptions=True)
            await stack.aclose()
            for bus in buses[1:]:
                await bus.close()
        return before, after, end

    before, after, end = run_simulated(seed, main)
    assert after == before
    assert end[-1] == "try.done"
    assert len(before.leases) == len({owner for _, owner, _ in before.partitions}) == PROCESSES
    assert (before.effect, before.agents) == (
        ["try.requested", "try.started"],
        ["agent.registered", "agent.online"] * 3,
    )


def test_who_was_late_with_its_own_lease_leaves_others_alone(tmp_path: Path) -> None:
    """Until it is renewed, and for the time of two renewals after; renewals in that time do not prolong it."""
    every = TTL / RENEWALS

    async def main(loop: SimulatedLoop) -> list[float]:
        bus = await simulated_bus(loop, tmp_path / "h.db")
        lease = await ProcessLease(bus.store.leases, owner="me", now=bus.now).open()
        rests = [lease.rest()]
        loop.advance(TTL - every)
        rests.append(lease.rest())
        loop.advance(0.1)
        rests.append(lease.rest())
        for _ in range(3):
            assert await lease.tell()
            rests.append(lease.rest())
            loop.advance(every)
        rests.append(lease.rest())
        loop.advance(SLEEP)
        await lease.close()
        rests.append(lease.rest())
        await bus.close()
        return rests

    assert run_simulated(1, main) == [0, 0, every, 2 * every, every, 0, 0, 0]
