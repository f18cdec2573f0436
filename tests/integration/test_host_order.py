"""Fold order, shared appends and crashes: the host's rules, driven through random orders of inputs."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_bus.brains.host import BrainHost
from hive_bus.hands.runner import HandRunner
from hive_bus.record import Record
from hive_bus.replay.redrive import redrive
from hive_bus.testing import SimulatedLoop, canonical_state, guarded, refold, run_simulated
from hive_errors import StoreBusy
from tests.support.brains import Asked, Bench, Done, LabBrain, StopAsked, Trial, Try, bench, pass_time, simulated_bus
from tests.support.sample_brain import OrderPlaced, Shop
from tests.support.sample_hands import Moods, World, shop_hands
from tests.support.simulated import seeded, unsound

KEYS = ("lab1", "lab2", "lab3")
STEP = st.tuples(
    st.sampled_from(KEYS), st.sampled_from([Asked(), Asked(), Asked(delay=0.5), StopAsked()]), st.integers(0, 3)
)


async def instant(intent: Try, ctx: Any) -> Done:
    """Do it now."""
    return Done()


async def slow(intent: Try, ctx: Any) -> Done:
    """Take a moment."""
    await pass_time(0.3)
    return Done()


@pytest.mark.timeout(600)
@given(steps=st.lists(STEP, min_size=1, max_size=25), hosts=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_any_order_of_inputs_gives_the_state_that_a_rebuild_gives(
    steps: list[tuple[str, Any, int]], hosts: int, seed: int
) -> None:
    """Several hosts, hands that lag, questions and retractions at any time: one end each, and live states as rebuilt."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "h.db"

        async def pause(loop: SimulatedLoop) -> None:
            if loop.random.random() < 0.1:
                await pass_time(loop.random.random() * 0.2)

        async def main(loop: SimulatedLoop) -> list[str]:
            with seeded(loop):
                return await drive(loop)

        async def drive(loop: SimulatedLoop) -> list[str]:
            async with bench(loop, path, hands=[Trial(slow)], brains=[guarded(LabBrain())]) as one:
                buses = [await simulated_bus(loop, path, f"h{n}", lambda: pause(loop)) for n in range(hosts - 1)]
                for bus in buses:
                    host = BrainHost(bus, guarded(LabBrain()), partitions=2)
                    one.hosts[bus.source] = host
                    one.serve(host, HandRunner(bus, [Trial(instant)], hosts={"lab": host}))
                for key, event, wait in steps:
                    await one.ask(event, key)
                    await pass_time(wait / 20)
                await pass_time(10.0)
                wrong = await _differences(one)
                for service in one.services:
                    service.cancel()
                await asyncio.wait(one.services)
                for bus in buses:
                    await bus.close()
                return wrong

        assert run_simulated(seed, main) == []
        assert unsound(str(path)) == []


async def _differences(one: Bench) -> list[str]:
    wrong = []
    for name, host in one.hosts.items():
        await host.member.caught_up(await one.bus.head(), within=60.0)
        for key, state in host.states().items():
            if canonical_state(state) != await refold(one.bus, host.brain, key):
                wrong.append(f"{name}: {key}")
    for key in KEYS:
        wrong += [str(found) async for found in redrive(one.bus.store.log, LabBrain(), key, upto=10**9)]
    return wrong


def shop_run(path: Path, seed: int, *, share: bool) -> dict[str, list[Record]]:
    """Five orders of one item each, all through to the end."""

    async def main(loop: SimulatedLoop) -> dict[str, list[Record]]:
        hands = shop_hands(World(), Moods(Random(seed), trouble=0.0))
        async with bench(loop, path, hands=hands, brains=[Shop()], share=share) as one:
            orders = [f"order{number}" for number in range(5)]
            for order in orders:
                await one.ask(OrderPlaced(items=("lamp",)), order)
            return {order: await one.until("shop.closed", key=order) for order in orders}

    return run_simulated(seed, main)


def test_a_shared_append_changes_no_history(tmp_path: Path) -> None:
    """Results that carry the decisions they lead to leave every key the history that it has without that."""
    apart = shop_run(tmp_path / "a.db", 1, share=False)
    together = shop_run(tmp_path / "b.db", 1, share=True)
    for order in apart:
        assert [row.topic for row in apart[order]] == [row.topic for row in together[order]]
    assert not any(_shares(rows) for rows in apart.values())
    assert all(_shares(rows) for rows in together.values())


def _shares(rows: list[Record]) -> int:
    """How many decisions share an append with their cause."""
    appends = {row.position: row.append_first for row in rows}
    return sum(row.cause_position is not None and appends.get(row.cause_position) == row.append_first for row in rows)


def test_a_decision_is_never_made_twice(tmp_path: Path) -> None:
    """A host that dies between its append and its checkpoint is followed by one that decides nothing again."""

    async def main(loop: SimulatedLoop) -> Counter[str]:
        path = tmp_path / "h.db"
        async with bench(loop, path, clock=False) as one:
            for service in one.services:
                service.cancel()
            await asyncio.wait(one.services)
            for _ in range(6):
                bus = await simulated_bus(loop, path, "mortal")
                host = BrainHost(bus, LabBrain(), partitions=2)
                # It never says how far it is: all its successors are given everything again.
                host.member._checkpoint = "consumer"
                one.serve(host)
                for key in KEYS:
                    await one.ask(Asked(), key)
                await pass_time(1.0)
                one.services[-1].cancel()
                await asyncio.wait(one.services[-1:])
                await bus.close()
            return Counter([row.topic for key in KEYS for row in await one.bus.history(key)])

    assert run_simulated(1, main) == {"lab.asked": 18, "try.requested": 18}


def test_what_the_store_refused_for_a_moment_is_never_overtaken(tmp_path: Path) -> None:
    """Decisions of one key lie in the order of their causes, also when the store is busy for some of them."""

    async def main(loop: SimulatedLoop) -> list[Record]:
        async with bench(loop, tmp_path / "h.db", clock=False) as one:
            append = one.bus.store.log.append

            async def busy(batch: Any) -> Any:
                if any(request.owner and request.events for request in batch) and loop.random.random() < 0.5:
                    raise StoreBusy(url="here", waited=0.0)
                return await append(batch[:1]) + (await busy(batch[1:]) if batch[1:] else [])

            other = await simulated_bus(loop, tmp_path / "h.db", "publisher")
            one.bus.store.log.append = busy  # type: ignore[method-assign]
            for _ in range(30):
                await other.publish(Asked(), correlation_id="lab1", stream="lab1/lab")
            records = await one.until("try.requested", 30)
            await other.close()
            return records

    records = run_simulated(3, main)
    causes = [row.cause_position or 0 for row in records if row.topic == "try.requested"]
    assert causes == sorted(causes)
    assert len(set(causes)) == 30
