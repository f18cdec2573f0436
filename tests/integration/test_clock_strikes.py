"""The clock: timers, the four timeouts, questions that nobody answered, and what it leaves to newer processes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from hive_bus.clock import Clock, meaning
from hive_bus.effects import LOST_ATTEMPTS
from hive_bus.event import Event
from hive_bus.events import ApprovalDenied, ApprovalGranted
from hive_bus.hands.hand import HandContext
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.records import AppendRequest, NewEvent, WorkEnd, WorkInsert, WorkItem, WorkRetry
from tests.support.brains import Asked, Trial, Try, bench, pass_time, simulated_bus
from tests.support.sample_brain import OrderPlaced, OrderStopped, Shop
from tests.support.sample_hands import Moods, World, shop_hands
from tests.support.shop_simulation import answered


def shop(path: Path, *events: Event, until: str, answer: Event | None = None) -> list[Record]:
    """An order's history, its hands calm, its question answered or not."""

    async def main(loop: SimulatedLoop) -> list[Record]:
        hands = shop_hands(World(), Moods(Random(1), trouble=0.0))
        async with bench(loop, path, hands=hands, brains=[Shop()]) as one:
            for event in events:
                await one.ask(event)
            if answer is not None:
                asked = await one.until("approval.requested")
                await answered(one.bus, asked[-1], answer)
                await answered(one.bus, asked[-1], answer)
            return await one.until(until)

    return run_simulated(2, main)


def test_a_timer_fires_when_its_time_has_come(tmp_path: Path) -> None:
    """Not before, and less than a poll after; the order then stops."""
    placed = OrderPlaced(items=("lamp",), price=90, patience=5.0)
    records = shop(tmp_path / "h.db", placed, until="shop.closed")
    times = {row.topic: row.recorded_at for row in records}
    assert 5_000_000 <= times["timer.fired"] - times["timer.set"] < 6_000_000
    assert records[-1].data == {"outcome": "took too long"}


def test_a_timer_that_nobody_wants_any_more_is_cancelled(tmp_path: Path) -> None:
    """It ends at once, and never fires."""
    records = shop(tmp_path / "h.db", OrderPlaced(items=("lamp",)), OrderStopped(), until="shop.closed")
    topics = [row.topic for row in records]
    assert "timer.cancelled" in topics
    assert "timer.fired" not in topics


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(ApprovalGranted(by="ada"), "shipped"), (ApprovalDenied(by="ada"), "denied"), (None, "not approved in time")],
)
def test_a_question_has_one_answer(answer: Event | None, outcome: str, tmp_path: Path) -> None:
    """A person's yes or no, given twice, counts once; without one the question expires after its 20 seconds."""
    records = shop(tmp_path / "h.db", OrderPlaced(items=("lamp",), price=90), until="shop.closed", answer=answer)
    assert records[-1].data == {"outcome": outcome}
    assert (
        len([row for row in records if row.topic in {"approval.granted", "approval.denied", "approval.expired"}]) == 1
    )


@pytest.mark.parametrize(
    ("asked", "reason", "seconds"),
    [
        (Asked(waiting=7.0), "waiting timeout", 7),
        (Asked(total=9.0), "total timeout", 9),
        (Asked(delay=100.0, total=9.0), "total timeout", 9),
    ],
)
def test_what_nobody_takes_in_time_fails(asked: Asked, reason: str, seconds: int, tmp_path: Path) -> None:
    """The waiting and the total timeout end an effect that no hand took."""

    async def main(loop: SimulatedLoop) -> list[Record]:
        async with bench(loop, tmp_path / "h.db") as one:
            await one.ask(asked)
            return await one.until("try.failed")

    records = run_simulated(1, main)
    assert reason in records[-1].data["reason"]
    assert seconds * 1_000_000 <= records[-1].recorded_at - records[0].recorded_at < (seconds + 1) * 1_000_000


def test_the_total_timeout_counts_over_attempts(tmp_path: Path) -> None:
    """Attempts that fail again and again end with the total time, whatever attempt it is."""

    async def fail(intent: Try, ctx: HandContext) -> Any:
        raise OSError("again")

    async def main(loop: SimulatedLoop) -> list[Record]:
        async with bench(loop, tmp_path / "h.db", hands=[Trial(fail)]) as one:
            await one.ask(Asked(total=20.0, max_attempts=100, backoff=4.0))
            return await one.until("try.failed")

    records = run_simulated(1, main)
    assert "total timeout" in records[-1].data["reason"]
    assert len([row for row in records if row.topic == "try.attempt_failed"]) > 1


def test_of_several_clocks_one_prevails(tmp_path: Path) -> None:
    """Every timer fires once, however many clocks strike at the same moment."""

    async def main(loop: SimulatedLoop) -> list[str]:
        path = tmp_path / "h.db"
        async with bench(loop, path, brains=[Shop()]) as one:
            others = [await simulated_bus(loop, path, f"clock{number}") for number in range(3)]
            one.serve(*[Clock(bus) for bus in others])
            for number in range(10):
                await one.ask(OrderPlaced(items=("lamp",), patience=5.0), key=f"order{number}")
            for number in range(10):
                await one.until("shop.closed", key=f"order{number}")
            topics = [row.topic for number in range(10) for row in await one.bus.history(f"order{number}")]
            for service in one.services[-3:]:
                service.cancel()
            for bus in others:
                await bus.close()
            return topics

    assert run_simulated(4, main).count("timer.fired") == 10


def test_what_only_newer_processes_can_read_does_not_run_in_circles(tmp_path: Path) -> None:
    """A due item whose intent this process does not know is left alone: a look per second, not thousands."""

    async def main(loop: SimulatedLoop) -> int:
        looks = 0
        async with bench(loop, tmp_path / "h.db") as one:
            strange = NewEvent(
                "strange-1", "s", "strange.requested", "s", None, None, None, "newer", 1, "{}", None,
                "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", None,
            )  # fmt: skip
            work = WorkInsert(event_index=0, queue="strange", state="delayed", delay=1)
            await one.bus.submit(AppendRequest(epoch=one.bus.writer.epoch, events=(strange,), work=(work,)))
            due = one.bus.store.work.due

            async def counted(*, limit: int) -> Any:
                nonlocal looks
                looks += 1
                return await due(limit=limit)

            one.bus.store.work.due = counted  # type: ignore[method-assign]
            await pass_time(20.0)
            # And time goes on for the others.
            await one.ask(Asked(waiting=2.0))
            await one.until("try.failed")
        return looks

    assert run_simulated(1, main) < 40


def due(reason: str, attempt: int) -> WorkItem:
    """A row of the queue that is due."""
    return WorkItem(
        work_id="w",
        position=1,
        topic=Try.TOPIC,
        correlation_id="c",
        stream="c/lab",
        queue="try",
        state="claimed",
        turn=1.0,
        attempt=attempt,
        fence=2 * attempt - 1,
        lease_id="gone",
        cancel_requested=False,
        due_at=0,
        claimed_at=0,
        inserted_at=0,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("reason", "attempt", "lost", "again"),
    [
        ("lease", 3, 2, True),
        ("lease", 10, 9, True),
        ("lease", 4, 0, False),
        ("lease", LOST_ATTEMPTS + 1, LOST_ATTEMPTS, False),
        ("running", 3, 0, False),
        ("running", 3, 1, True),
    ],
)
def test_a_process_that_dies_uses_up_no_attempt(reason: str, attempt: int, lost: int, *, again: bool) -> None:
    """What failed by itself counts, what died with its process does not, unless they keep dying in it."""
    _, change = meaning(due(reason, attempt), Try(), lost=lost)
    assert isinstance(change, WorkRetry if again else WorkEnd)
