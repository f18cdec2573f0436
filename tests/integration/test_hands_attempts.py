"""Attempts of an effect: retries, timeouts, cancellation, late results, and what its class allows after a cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hive_bus.effects import Failure
from hive_bus.hands.hand import HandContext
from hive_bus.hands.runner import HandRunner
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, run_simulated
from tests.support.brains import Asked, Bench, Done, StopAsked, Trial, Try, bench, pass_time, simulated_bus

Steps = Callable[[Bench], Coroutine[Any, Any, list[Record]]]


def told(path: Path, hand: Trial, steps: Steps, *, clock: bool = True) -> list[Record]:
    """What a history holds after the steps, with the hand at work."""

    async def main(loop: SimulatedLoop) -> list[Record]:
        async with bench(loop, path, hands=[hand], clock=clock) as one:
            return await steps(one)

    return run_simulated(1, main)


def topics(records: list[Record]) -> list[str]:
    """The attempts' part of a history, by last word."""
    return [row.topic.partition(".")[2] for row in records if row.topic.startswith("try.")]


async def hang() -> None:
    """Never return."""
    await asyncio.get_running_loop().create_future()


def test_a_failed_attempt_is_tried_again_after_a_growing_wait(tmp_path: Path) -> None:
    """Each failure is an event that says how long the queue waits: at least three quarters of 1, then of 2 seconds."""
    started: list[float] = []

    async def fail_twice(intent: Try, ctx: HandContext) -> Any:
        started.append(asyncio.get_running_loop().time())
        return Done() if ctx.attempt == 3 else Failure(reason="no", retryable=True)

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        return await one.until("try.done")

    records = told(tmp_path / "h.db", Trial(fail_twice), steps)
    assert topics(records) == [
        "requested", "started", "attempt_failed", "started", "attempt_failed", "started", "done",
    ]  # fmt: skip
    waits = [row.data["retry_in"] for row in records if row.topic == "try.attempt_failed"]
    assert 0.75 <= waits[0] <= 1.0
    assert 1.5 <= waits[1] <= 2.0
    assert started[1] - started[0] >= waits[0] - 0.001
    assert started[2] - started[1] >= waits[1] - 0.001


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """A hand that knows how long to wait says so."""

    async def later(intent: Try, ctx: HandContext) -> Any:
        return Done() if ctx.attempt == 2 else Failure(reason="429", retryable=True, retry_after=30.0)

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        return await one.until("try.done")

    records = told(tmp_path / "h.db", Trial(later), steps)
    times = [row.recorded_at for row in records if row.topic == "try.started"]
    assert times[1] - times[0] >= 30_000_000


def test_the_last_attempt_ends_it(tmp_path: Path) -> None:
    """After ``max_attempts`` a retryable failure is the end, with the number of attempts."""

    async def fail(intent: Try, ctx: HandContext) -> Any:
        raise OSError("broken")

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked(max_attempts=2))
        return await one.until("try.failed")

    records = told(tmp_path / "h.db", Trial(fail), steps)
    assert records[-1].data["attempts"] == 2
    assert records[-1].data["reason"] == "OSError: broken"


def test_a_final_failure_is_not_tried_again(tmp_path: Path) -> None:
    """A failure that is not retryable ends the effect at once."""

    async def fail(intent: Try, ctx: HandContext) -> Any:
        return Failure(reason="never", kind="refused", cost="0.10")

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        return await one.until("try.failed")

    records = told(tmp_path / "h.db", Trial(fail), steps)
    assert topics(records) == ["requested", "started", "failed"]
    assert (records[-1].data["kind"], records[-1].data["cost"]) == ("refused", "0.10")


def test_an_unsafe_effect_that_raised_is_unknown(tmp_path: Path) -> None:
    """Nobody knows whether it happened, so it is not tried again and ends as unknown."""

    async def fail(intent: Try, ctx: HandContext) -> Any:
        raise OSError("the line was cut")

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked(effect="unsafe"))
        return await one.until("try.failed")

    records = told(tmp_path / "h.db", Trial(fail), steps)
    assert topics(records) == ["requested", "started", "failed"]
    assert records[-1].data["kind"] == "unknown"


def test_a_running_timeout_ends_the_attempt(tmp_path: Path) -> None:
    """An attempt that takes too long is cut off and tried again; an unsafe one ends as unknown."""
    cut: list[int] = []

    async def slow(intent: Try, ctx: HandContext) -> Any:
        try:
            if ctx.attempt == 1:
                await hang()
        except asyncio.CancelledError:
            cut.append(ctx.attempt)
            raise
        return Done()

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked(running=5.0))
        return await one.until("try.done")

    async def unsafe(one: Bench) -> list[Record]:
        await one.ask(Asked(running=5.0, effect="unsafe"))
        return await one.until("try.failed")

    assert topics(told(tmp_path / "a.db", Trial(slow), steps)) == [
        "requested", "started", "attempt_failed", "started", "done",
    ]  # fmt: skip
    assert told(tmp_path / "b.db", Trial(slow), unsafe)[-1].data["kind"] == "unknown"
    assert cut == [1, 1]


def test_what_is_silent_is_cut_off_and_its_slot_is_free(tmp_path: Path) -> None:
    """Touches keep an attempt alive; without one for the silent timeout the clock takes it away and it is stopped."""
    cut: list[float] = []

    async def quiet(intent: Try, ctx: HandContext) -> Any:
        if ctx.attempt > 1:
            return Done()
        for _ in range(4):
            await pass_time(2.0)
            ctx.touch()
        try:
            await hang()
        finally:
            cut.append(asyncio.get_running_loop().time())

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked(silent=3.0))
        return await one.until("try.done")

    records = told(tmp_path / "h.db", Trial(quiet), steps)
    assert topics(records) == ["requested", "started", "attempt_failed", "started", "done"]
    assert len(cut) == 1
    assert cut[0] >= 11.0


def test_running_work_is_cancelled_on_request(tmp_path: Path) -> None:
    """The hand is stopped, and the effect ends as cancelled, once; the event of the request says so, no clock is waited for."""

    async def forever(intent: Try, ctx: HandContext) -> Any:
        await hang()

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        await one.until("try.started")
        await one.ask(StopAsked())
        return await one.until("try.cancelled")

    records = told(tmp_path / "h.db", Trial(forever), steps)
    assert topics(records) == ["requested", "started", "cancel_requested", "cancelled"]
    assert records[3].recorded_at - records[2].recorded_at < 200_000


def test_waiting_work_is_cancelled_by_the_clock(tmp_path: Path) -> None:
    """What nobody holds is never started once it was asked to end."""

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked(delay=100.0))
        await one.ask(StopAsked())
        return await one.until("try.cancelled")

    async def never(intent: Try, ctx: HandContext) -> Any:
        raise AssertionError("it was cancelled")

    records = told(tmp_path / "h.db", Trial(never), steps)
    assert topics(records) == ["requested", "cancel_requested", "cancelled"]


def test_a_result_that_came_first_wins_over_the_request_to_cancel(tmp_path: Path) -> None:
    """The request finds nothing to end: there is one end, the real result."""

    async def quick(intent: Try, ctx: HandContext) -> Any:
        return Done()

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        await one.until("try.done")
        await one.ask(StopAsked())
        await one.until("lab.stop_asked")
        return await one.bus.history("lab1")

    records = told(tmp_path / "h.db", Trial(quick), steps)
    assert topics(records).count("cancelled") == 0


def test_a_hand_that_swallows_its_cancellation_has_its_result_kept(tmp_path: Path) -> None:
    """Who finishes all the same has finished: the result is the end."""

    async def stubborn(intent: Try, ctx: HandContext) -> Any:
        try:
            await hang()
        except asyncio.CancelledError:
            return Done(word="anyway")

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        await one.until("try.started")
        await one.ask(StopAsked())
        return await one.until("try.done")

    records = told(tmp_path / "h.db", Trial(stubborn), steps)
    assert topics(records)[-1] == "done"
    assert "cancelled" not in topics(records)


def test_a_late_result_is_superseded_and_ends_nothing(tmp_path: Path) -> None:
    """A hand that lost its lease finishes after another took over: its result is kept beside the one that counts."""

    async def main(loop: SimulatedLoop) -> list[Record]:
        gate = asyncio.Event()

        async def late(intent: Try, ctx: HandContext) -> Any:
            if ctx.attempt == 1:
                await asyncio.shield(gate.wait())
                return Done(word="late")
            return Done(word="in time")

        async with bench(loop, tmp_path / "h.db", hands=[]) as one:
            # A process of its own that hears nothing of the log: its tail stands still.
            other = await simulated_bus(loop, tmp_path / "h.db", "other")
            runner = HandRunner(other, [Trial(late)])
            one.serve(runner)
            await one.ask(Asked())
            await one.until("try.started")
            other.store.log.poll = _nothing_new  # type: ignore[method-assign]
            lease = await other.open_lease()
            await one.bus.store.leases.close(lease.lease_id)
            one.serve(HandRunner(one.bus, [Trial(late)]))
            await one.until("try.done")
            gate.set()
            records = await one.until("try.superseded")
            one.services[-2].cancel()
            await asyncio.wait([one.services[-2]])
            await other.close()
            return records

    records = run_simulated(1, main)
    assert topics(records) == ["requested", "started", "attempt_failed", "started", "done", "superseded"]
    assert records[-1].data["result"] == {"word": "late"}
    assert [row.data["word"] for row in records if row.topic == "try.done"] == ["in time"]


async def _nothing_new() -> None:
    """What a log says that nobody else wrote to."""


def _cut(path: Path, effect: str, reconcile: Callable[[], Any] | None = None) -> tuple[list[Record], int]:
    """A history in which the first attempt's process dies after the effect, and how often the effect was tried."""
    tries: list[int] = []

    async def effect_then_hang(intent: Try, ctx: HandContext) -> Any:
        tries.append(ctx.attempt)
        if ctx.attempt == 1:
            await hang()
        return Done(word=f"attempt {ctx.attempt}")

    async def main(loop: SimulatedLoop) -> list[Record]:
        async with bench(loop, path, hands=[]) as one:
            other = await simulated_bus(loop, path, "other")
            runner = HandRunner(other, [Trial(effect_then_hang)])
            one.serve(runner)
            await one.ask(Asked(effect=effect))
            await one.until("try.started")
            one.services[-1].cancel()
            await asyncio.wait([one.services[-1]])
            await other.close()
            one.serve(HandRunner(one.bus, [Trial(effect_then_hang, reconcile)]))
            return await one.until("try.failed" if effect == "unsafe" else "try.done")

    return run_simulated(1, main), len(tries)


def test_after_a_crash_an_idempotent_effect_runs_again(tmp_path: Path) -> None:
    """The attempt is lost, another follows."""
    records, tries = _cut(tmp_path / "h.db", "idempotent")
    assert topics(records) == ["requested", "started", "attempt_failed", "started", "done"]
    assert tries == 2


def test_after_a_crash_an_unsafe_effect_ends_as_unknown(tmp_path: Path) -> None:
    """It may have run, in part or in full: it never runs again by itself."""
    records, tries = _cut(tmp_path / "h.db", "unsafe")
    assert topics(records) == ["requested", "started", "failed"]
    assert records[-1].data["kind"] == "unknown"
    assert "may have run" in records[-1].data["reason"]
    assert tries == 1


def test_after_a_crash_a_reconcilable_effect_is_asked_for(tmp_path: Path) -> None:
    """What did happen is the result; what did not happen is done."""
    records, tries = _cut(tmp_path / "a.db", "reconcilable", lambda: Done(word="it had happened"))
    assert records[-1].data == {"word": "it had happened"}
    assert tries == 1
    records, tries = _cut(tmp_path / "b.db", "reconcilable", lambda: None)
    assert records[-1].data == {"word": "attempt 2"}
    assert tries == 2


def test_a_lost_lease_ends_what_runs_and_a_new_one_begins(tmp_path: Path) -> None:
    """The runner goes on under a new lease; what it held was cut off and is tried again."""
    tries: list[int] = []

    async def first_hangs(intent: Try, ctx: HandContext) -> Any:
        tries.append(ctx.attempt)
        if ctx.attempt == 1:
            await hang()
        return Done()

    async def steps(one: Bench) -> list[Record]:
        await one.ask(Asked())
        await one.until("try.started")
        lease = await one.bus.open_lease()
        await one.bus.store.leases.close(lease.lease_id)
        return await one.until("try.done")

    records = told(tmp_path / "h.db", Trial(first_hangs), steps)
    assert topics(records) == ["requested", "started", "attempt_failed", "started", "done"]
    assert tries == [1, 2]


def test_news_of_an_earlier_attempt_cut_nothing_off(tmp_path: Path) -> None:
    """Who claims reads the queue itself, and may hear only afterwards how the attempt before it ended: its own goes on."""

    async def main(loop: SimulatedLoop) -> list[str]:
        go = asyncio.Event()

        async def fail_first(intent: Try, ctx: HandContext) -> Any:
            if ctx.attempt == 1:
                return Failure(reason="no", retryable=True)
            await go.wait()
            return Done()

        async with bench(loop, tmp_path / "h.db") as one:
            runner = HandRunner(one.bus, [Trial(fail_first)])
            one.serve(runner)
            await one.ask(Asked(backoff=0.1))
            records = await one.until("try.started", 2)
            await pass_time(0.1)
            late = [record for record in records if record.topic == "try.attempt_failed"]
            runner._cut_off(await one.bus.store.log.read(late[0].position - 1, limit=1))
            await pass_time(0.1)
            go.set()
            await pass_time(1.0)
            return topics(await one.bus.history("lab1"))

    assert run_simulated(1, main) == ["requested", "started", "attempt_failed", "started", "done"]
