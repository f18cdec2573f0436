"""Limits that several processes share: slots, rates, tokens and pauses, and who may go on while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agents.workflows.workflow import Step, Workflow
from hive_bus.effects import CancelRequested, Failure
from hive_bus.hands.hand import HandContext
from hive_bus.limit import Limit
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.records import WorkCancel
from hive_core_db.sqlite.limits import SqliteLimits
from hive_errors import StoreBusy
from tests.contract.making import request
from tests.support.brains import pass_time
from tests.support.capacity import Job, JobDone, Site, site
from tests.support.hives import hive_at
from tests.support.patience import WITHIN


class JobCancelRequested(CancelRequested, topic="job.cancel_requested"):
    """Somebody wants a job to end."""


def played(path: Path, steps: Callable[[Site], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Play the steps on a simulated loop with two processes."""

    async def main(loop: SimulatedLoop) -> None:
        async with site(loop, path / "h.db", **options) as one:
            await steps(one)

    run_simulated(1, main)


def test_all_processes_together_keep_to_the_concurrency(tmp_path: Path) -> None:
    """Two processes with eight slots each run three jobs at a time, and three all the time."""

    async def steps(one: Site) -> None:
        begun = one.loop.time()
        await one.ask(*(Job() for _ in range(30)))
        await one.until("job.done", 30)
        assert one.count.most[""] == 3
        assert one.loop.time() - begun < 10 + 6 * 0.5, "slots that come back are found by who waits for them"
        assert {worker for _, _, worker in one.count.starts} == {"ada", "bob"}
        await pass_time(5.0)
        assert [(state.taken, state.missing) for state in await one.bus.store.limits.state()] == [(0, 0)]

    played(tmp_path, steps, limits={"job": Limit(concurrency=3)})


def test_what_waits_for_a_key_does_not_keep_others_waiting(tmp_path: Path) -> None:
    """Forty jobs of a key with one slot stand in front; those of another key overtake them and end first."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(key="slow") for _ in range(40)))
        await one.until("job.started", 1)
        await one.ask(*(Job(key="quick") for _ in range(5)))
        await pass_time(3.0)
        assert one.count.most["slow"] == 1
        assert [key for _, key, _ in one.count.starts].count("quick") == 5

    played(tmp_path, steps, limits={"slow": Limit(concurrency=1), "quick": Limit(concurrency=5)}, concurrency=5)


def test_the_reason_for_waiting_can_be_seen(tmp_path: Path) -> None:
    """By key: how many slots are taken and missing in the database, and how many jobs wait here."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(key="gpu", seconds=60.0) for _ in range(6)))
        await pass_time(2.0)
        (state,) = await one.bus.store.limits.state()
        assert (state.key, state.taken, state.ceiling, state.missing) == ("gpu", 2, 2, 4)
        for _ in range(20):
            await pass_time(0.07)
            assert one.runners[0].capacity.waiting() == {"gpu": 4}

    played(tmp_path, steps, limits={"gpu": Limit(concurrency=2)}, workers=("ada",))


def test_requests_per_minute_are_spaced_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of thirty a minute: a burst of five, then one every two seconds in both processes together; nobody spins meanwhile."""
    asked: list[float] = []
    spend = SqliteLimits.spend

    async def noted(self: SqliteLimits, *values: Any) -> int:
        asked.append(asyncio.get_running_loop().time())
        return await spend(self, *values)

    monkeypatch.setattr(SqliteLimits, "spend", noted)

    async def steps(one: Site) -> None:
        await one.ask(*(Job(seconds=0.1) for _ in range(15)))
        await one.until("job.done", 15)
        times = [time for time, _, _ in one.count.starts]
        assert times[4] - times[0] < 0.5
        assert 19.0 < times[14] - times[0] < 24.0
        assert len(asked) < 15 + 2 * 12 * 2, "a wait is a timer"

    played(tmp_path, steps, limits={"job": Limit(requests_per_minute=30)})


def test_tokens_are_settled_by_what_was_used(tmp_path: Path) -> None:
    """Each call was thought to take 10 tokens and took 100: after the first ones the rate of 600 a minute is kept."""

    async def perform(job: Job, ctx: HandContext) -> JobDone:
        await pass_time(1.0)
        return JobDone(used=100.0)

    async def steps(one: Site) -> None:
        await one.ask(*(Job(key="m", tokens=10.0) for _ in range(6)))
        await one.until("job.done", 6)
        # The bucket holds 100 and gets 10 a second: six calls used 600, so most of a minute has to pass.
        first = one.count.starts[0][0]
        await one.ask(Job(key="m", tokens=10.0))
        await one.until("job.done", 7)
        assert 45.0 < one.count.starts[-1][0] - first < 60.0
        keys = {state.key: state for state in await one.bus.store.limits.state()}
        assert keys["m tokens"].burst == 100.0

    played(tmp_path, steps, limits={"m": Limit(tokens_per_minute=600)}, perform=perform, workers=("ada",))


def test_a_provider_that_wants_a_rest_gets_it_from_everybody(tmp_path: Path) -> None:
    """One process is refused with ``retry_after``: for so long neither begins anything of the key; other keys go on."""

    async def perform(job: Job, ctx: HandContext) -> JobDone | Failure:
        if job.tokens == 1.0 and ctx.attempt == 1:
            return Failure(reason="429", kind="rate_limit_error", retryable=True, retry_after=30.0)
        await pass_time(0.1)
        return JobDone()

    async def steps(one: Site) -> None:
        await one.ask(Job(key="api", tokens=1.0))
        await one.until("job.attempt_failed", 1)
        refused = one.loop.time()
        await one.ask(*(Job(key="api") for _ in range(10)), *(Job(key="other") for _ in range(2)))
        await one.until("job.done", 2)
        assert one.loop.time() - refused < 2.0
        assert [state.key for state in await one.bus.store.limits.state() if state.held_until] == ["api"]
        await one.until("job.done", 13)
        assert min(time for time, key, _ in one.count.starts[1:] if key == "api") - refused > 29.5

    played(tmp_path, steps, limits={"api": Limit()}, perform=perform)


def test_cancelled_work_gives_its_slot_back(tmp_path: Path) -> None:
    """The next job begins when the cancelled one was stopped."""

    async def steps(one: Site) -> None:
        first, _ = await one.ask(Job(seconds=1000.0), Job())
        await one.until("job.started", 1)
        await one.bus.submit(request(work=(WorkCancel(work_id=first),)))
        await one.bus.publish(JobCancelRequested(intent_id=first), correlation_id="run", stream="run/jobs")
        await one.until("job.cancelled", 1)
        await one.until("job.done", 1)
        assert one.count.most[""] == 1

    played(tmp_path, steps, limits={"job": Limit(concurrency=1)})


def test_a_process_that_lost_its_lease_holds_no_slots(tmp_path: Path) -> None:
    """Its slots are free with its lease, and what it performed is stopped."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(seconds=500.0) for _ in range(2)))
        await one.until("job.started", 2)
        await pass_time(0.1)
        holder = {worker for _, _, worker in one.count.starts}
        for bus in one.buses:
            if bus.source in holder:
                lease = await bus.open_lease()
                await one.bus.store.leases.close(lease.lease_id)
        await one.until("job.attempt_failed", 2)
        await one.until("job.started", 4)
        assert one.count.now[""] == one.count.most[""] == 2

    played(tmp_path, steps, limits={"job": Limit(concurrency=2)})


def test_a_runner_that_ends_gives_back_what_it_held(tmp_path: Path) -> None:
    """Its bus and lease go on; the other process takes its slots at once."""

    async def steps(one: Site) -> None:
        await one.ask(Job(seconds=500.0))
        await one.until("job.started", 1)
        await pass_time(0.1)
        worker = one.count.starts[0][2]
        index = [bus.source for bus in one.buses].index(worker)
        one.services[index].cancel()
        await asyncio.wait([one.services[index]])
        await pass_time(1.0)
        assert [state.taken for state in await one.bus.store.limits.state()] == [0]

    played(tmp_path, steps, limits={"job": Limit(concurrency=1)})


def test_without_limits_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No round trip more than before, whatever the hand's keys."""

    async def never(*_: Any) -> int:
        raise AssertionError("there are no limits")

    for call in ("take", "give", "spend", "settle", "hold"):
        monkeypatch.setattr(SqliteLimits, call, never)

    async def steps(one: Site) -> None:
        await one.ask(*(Job(key="k") for _ in range(10)))
        await one.until("job.done", 10)

    played(tmp_path, steps)


def test_what_takes_no_time_is_not_limited(tmp_path: Path) -> None:
    """It is done where it stands, while a limit is used up by others for minutes."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(seconds=1000.0) for _ in range(4)))
        await one.until("job.started", 1)
        await pass_time(0.5)
        await one.ask(*(Job(at_once=True) for _ in range(5)))
        begun = one.loop.time()
        await one.until("job.done", 5)
        assert one.loop.time() - begun < 0.5

    played(tmp_path, steps, limits={"job": Limit(requests_per_minute=0.5)})


def test_an_answer_that_was_lost_costs_a_slot_only_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store took a slot, or took it back, and could not say so: later all slots are there again."""
    take, give, lost = SqliteLimits.take, SqliteLimits.give, {"take": 2, "give": 1}

    async def taken(self: SqliteLimits, *values: Any) -> int:
        granted = await take(self, *values)
        return await _lose(granted, "take")

    async def given(self: SqliteLimits, *values: Any) -> None:
        await give(self, *values)
        await _lose(0, "give")

    async def _lose(answer: int, call: str) -> int:
        lost[call] -= 1
        if lost[call] >= 0:
            raise StoreBusy(url="sqlite:///h.db", waited=60.0)
        return answer

    monkeypatch.setattr(SqliteLimits, "take", taken)
    monkeypatch.setattr(SqliteLimits, "give", given)

    async def steps(one: Site) -> None:
        await one.ask(*(Job() for _ in range(6)))
        await one.until("job.done", 6)
        await pass_time(5.0)
        one.count.most.clear()
        await one.ask(*(Job() for _ in range(6)))
        await one.until("job.done", 12)
        assert one.count.most[""] == 3
        await pass_time(5.0)
        assert [(state.taken, state.missing) for state in await one.bus.store.limits.state()] == [(0, 0)]

    played(tmp_path, steps, limits={"job": Limit(concurrency=3)}, workers=("ada",))


def test_a_hive_keeps_its_runs_to_the_limits(tmp_path: Path) -> None:
    """Six commands that may run side by side run one after another, for `task:run` allows one; steps that do nothing do not wait."""

    async def main() -> None:
        mark, seen = tmp_path / "mark", tmp_path / "seen"
        command = f"test ! -e {mark} && touch {mark} && echo x >> {seen} && rm {mark}"
        steps = [Step(id=f"c{number}", run=command) for number in range(6)]
        url = f"sqlite:///{tmp_path}/h.db"
        async with hive_at(url, tmp_path, limits={"task:run": Limit(concurrency=1)}) as hive:
            run = await hive.start(Workflow(name="limited", steps=tuple(steps)))
            result = await run.result(within=WITHIN)
            assert result.status == "completed"
        assert seen.read_text() == "x\n" * 6

    asyncio.run(main())
