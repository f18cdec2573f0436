"""Real processes on one budget: it is never overdrawn, and what a killed process had reserved comes back."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from decimal import Decimal

from hive_bus import Bus, open_bus
from hive_bus.budget import Budget
from hive_bus.hands.budgets import run_account, set_budget
from tests.integration.test_capacity_processes import until
from tests.integration.test_groups_processes import processes
from tests.support.spending import Purchase, overdrawn

RUN = "buying"


async def begin(url: str, name: str, *words: str) -> asyncio.subprocess.Process:
    """Start a process that buys."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.budget_process", url, name, *words
    )


async def ask(bus: Bus, number: int) -> None:
    """Ask for so many purchases, of which each may cost twice what it does."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(number):
            _ = tasks.create_task(
                bus.publish(Purchase(most="0.2", costs="0.1"), stream=f"{RUN}/purchases", correlation_id=RUN)
            )


async def test_a_budget_reserved_by_two_at_once_is_never_overdrawn(hive_url: str) -> None:
    """Two processes buy until no more is allowed; a person raises it, and they buy the rest."""
    async with open_bus(hive_url, source="test") as bus, processes() as started:
        await set_budget(bus, await run_account(bus.store.log, RUN), change=Budget(usd=Decimal("1.25")))
        started += [await begin(hive_url, "ada"), await begin(hive_url, "bob")]
        await until(bus, "buyer.ready", 2)
        await ask(bus, 20)
        await until(bus, "budget.exceeded", 1)
        account = await run_account(bus.store.log, RUN)
        # The last purchase is refused, although what it would cost in the end is left: nobody can know.
        assert account.ledger.used.usd == Decimal("1.1")
        assert account.ledger.lacks == "usd"
        await set_budget(bus, account, add=Budget(usd=Decimal(1)), by="ana")
        await until(bus, "purchase.done", 20)
        records = await bus.history(RUN)
        buyers = Counter(record.source for record in records if record.topic == "purchase.done")
        exceeded = [record for record in records if record.topic == "budget.exceeded"]
        account = await run_account(bus.store.log, RUN)
    assert overdrawn(records, f"{RUN}/budget") == []
    assert buyers.keys() == {"ada", "bob"}
    assert len(exceeded) == 1, "it is said once, by whoever was first"
    assert (account.ledger.used.usd, account.ledger.used.calls, dict(account.ledger.open)) == (Decimal(2), 20, {})


async def test_what_a_killed_process_had_reserved_comes_back(hive_url: str) -> None:
    """Killed between reservation and result: the next attempt is given the same money, not more of it."""
    async with open_bus(hive_url, source="test") as bus, processes() as started:
        await set_budget(bus, await run_account(bus.store.log, RUN), change=Budget(usd=Decimal("0.3"), calls=2))
        await ask(bus, 1)
        started.append(await begin(hive_url, "ada", "stuck"))
        await until(bus, "purchase.started", 1)
        held = (await run_account(bus.store.log, RUN)).ledger
        assert (held.reserved.usd, held.reserved.calls) == (Decimal("0.2"), 1)
        started[0].kill()
        started.append(await begin(hive_url, "bob"))
        await until(bus, "purchase.done", 1)
        records = await bus.history(RUN)
        ledger = (await run_account(bus.store.log, RUN)).ledger
    told = [(record.topic, record.data.get("attempt"), record.data.get("lost")) for record in records]
    assert [one for one in told if one[0].startswith("budget.")][1:] == [
        ("budget.reserved", 1, None),
        ("budget.settled", 1, True),
        ("budget.reserved", 2, None),
        ("budget.settled", 2, False),
    ]
    assert (ledger.used.usd, ledger.used.calls, dict(ledger.open)) == (Decimal("0.1"), 1, {})
    assert overdrawn(records, f"{RUN}/budget") == []
