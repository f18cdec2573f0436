"""A rival is quicker with a reservation: what was reckoned behind one's own is void with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from hive_bus import Event, HandContext, HandRunner, open_bus
from hive_bus.budget import Budget
from hive_bus.clock import Clock
from hive_bus.envelope import encode_event
from hive_bus.events import BudgetReserved
from hive_bus.hands.attempt import Claimed
from hive_bus.hands.budgets import run_account, set_budget
from hive_core_db.records import AppendRequest
from tests.integration.test_budget_processes import RUN, ask
from tests.integration.test_capacity_processes import until
from tests.support.handling import running
from tests.support.spending import Buyer, Purchase, PurchaseDone, overdrawn

STREAM = f"{RUN}/budget"


async def buy(intent: Purchase, ctx: HandContext) -> Event:
    """It costs what it says."""
    return PurchaseDone(cost=intent.costs)


async def test_what_was_reckoned_behind_a_refused_claim_is_void(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three claims are on their way, each at the next version, when a rival reserves most of it at the first: none may take its place."""
    async with open_bus(hive_url, source="test") as bus:
        await set_budget(bus, await run_account(bus.store.log, RUN), change=Budget(usd=Decimal("1.3")))
        await ask(bus, 3)
        runner = HandRunner(bus, [Buyer(buy)])
        reckon = runner.budgets.affordable
        rivals: list[int] = []

        async def outdone(
            wanted: Sequence[Claimed], context: Callable[[Claimed], HandContext], **given: Any
        ) -> list[Claimed]:
            allowed = await reckon(wanted, context, **given)
            if not rivals and len(allowed) > 1:
                event = encode_event(
                    BudgetReserved(attempt=1, streams=(STREAM,), usd="1.0", calls=1),
                    stream=STREAM, correlation_id=RUN, causation_id="a-rivals-purchase", source="rival",
                    event_id=bus.ids.event_id(bus.now()),
                )  # fmt: skip
                rivals.append((await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(event,)))).first)
            return allowed

        monkeypatch.setattr(runner.budgets, "affordable", outdone)
        async with running(runner), running(Clock(bus, on_ready=runner.wake)):
            # For the third there is not enough while the rival holds that much.
            await until(bus, "purchase.done", 2)
        records = await bus.history(RUN)
    assert rivals, "the rival never came"
    assert overdrawn(records, STREAM) == []
