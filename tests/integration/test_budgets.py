"""Whole runs with budgets: what they may not use they wait for or ask for, and every decision is made the same again."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest

from agents.hive import Hive
from agents.models.anthropic import AnthropicModel
from agents.run import Run
from dashboard.views import read_status, run_view
from hive_bus import Record, open_bus
from hive_bus.budget import NOTHING, Budget, HiveBudget, parse_budget
from hive_bus.config import load_settings
from hive_bus.events import BudgetSettled, WorkflowForked, WorkflowRequested
from hive_bus.hands.budgets import run_account, set_budget
from hive_bus.reading import FROM_BEGINNING
from hive_errors import BudgetInvalid, SettingInvalid
from tests.integration.test_usage import tell
from tests.support.console import Console
from tests.support.hives import differences, finished, hive_at
from tests.support.patience import WITHIN
from tests.support.repositories import make_checkout
from tests.support.spending import overdrawn

THREE = """\
name: three
budget: {calls: 50}
steps:
  - {id: a, prompt: Say a., review: false}
  - {id: b, prompt: Say b., review: false}
  - {id: c, prompt: Say c., review: false}
"""
ANSWERS = {"prices": {"input": 0, "output": 100}, "drone": {"*": [{"text": "done"}]}}


async def paused(hive: Hive, run: Run) -> Record:
    """The event that says that the run waits for its budget."""
    async with asyncio.timeout(WITHIN), hive.bus.subscribe("workflow.paused", start=FROM_BEGINNING) as records:
        async for record in records:
            if record.correlation_id == run.id:
                return record
    raise AssertionError("unreachable")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout, a workflow of three drones beside it, and what these say."""
    (tmp_path / "three.yaml").write_text(THREE)
    (tmp_path / "answers.json").write_text(json.dumps(ANSWERS))
    return make_checkout(tmp_path / "src")


async def test_calls_that_fit_one_after_the_other_wait_for_each_other(hive_url: str, place: Path) -> None:
    """A budget for one long answer at a time is enough for three short ones: nobody is asked, nothing is overdrawn."""
    model = f"scripted:{place.parent}/answers.json"
    async with hive_at(hive_url, place, model=model) as hive:
        run = await hive.start(place.parent / "three.yaml", budget=Budget(usd=Decimal("0.9")))
        result, records = await finished(run)
        assert result.status == "completed"
    assert overdrawn(records, f"{run.id}/budget") == []
    assert [record.topic for record in records if record.topic == "budget.exceeded"] == []
    view = run_view(records)
    assert view is not None
    assert view.budget is not None
    assert view.budget.limits == Budget(usd=Decimal("0.9"), calls=50)
    assert (view.budget.used.usd, view.budget.used.calls) == (view.cost.dollars, 3)


async def test_a_run_pauses_says_so_and_goes_on_when_it_is_raised(hive_url: str, place: Path) -> None:
    """Its next call may need more than is left; it is told where people look, a person raises it, and redrive is silent throughout."""
    model = f"scripted:{place.parent}/answers.json"
    async with hive_at(hive_url, place, model=model) as hive:
        run = await hive.start(place.parent / "three.yaml", budget=Budget(calls=2))
        record = await paused(hive, run)
        assert record.data["reason"] == "the run's budget: 0 of 2 calls left, and the next call may take 1 call"
        view = run_view(await hive.bus.history(run.id))
        assert view is not None
        assert (view.status, view.over_budget) == ("paused", record.data["reason"])
        status = await read_status(hive.bus, seconds=60, place="here")
        assert status.over_budget == {run.id: record.data["reason"]}
        assert any("hive budget" in sentence for sentence in status.attention)
        assert await differences(hive.bus, run.id) == []
        await hive.resume(run.id)  # a word alone gives it no money
        await set_budget(hive.bus, await run_account(hive.bus.store.log, run.id), add=Budget(calls=1))
        result, records = await finished(run)
        assert result.status == "completed"
        assert (await read_status(hive.bus, seconds=60, place="here")).over_budget == {}
    assert overdrawn(records, f"{run.id}/budget") == []


async def test_the_hive_has_a_budget_too(hive_url: str, place: Path) -> None:
    """All runs of a period share it: the second pauses, and goes on by itself when the hive may use more."""
    model = f"scripted:{place.parent}/answers.json"
    async with hive_at(hive_url, place, model=model, budget=HiveBudget(calls=4, per="ever")) as hive:
        first = await hive.start(place.parent / "three.yaml")
        await finished(first)
        second = await hive.start(place.parent / "three.yaml")
        record = await paused(hive, second)
        assert record.data["reason"].startswith("the hive's budget: 0 of 4 calls left")
    async with hive_at(hive_url, place, model=model, budget=HiveBudget(calls=6, per="ever")) as hive:
        result, records = await finished(Run(hive.bus, second.id))
        assert result.status == "completed"
        whole = [*await hive.bus.history(first.id), *records]
    cleared = [record for record in records if record.topic == "budget.cleared"]
    assert len(cleared) == 1
    assert sum(record.topic == "budget.settled" and record.stream == "budget/ever" for record in whole) == 6


async def test_a_branch_begins_with_its_parents_limits_and_nothing_used(hive_url: str) -> None:
    """What was said before it was forked holds for it; what was used, was used by the parent."""
    async with open_bus(hive_url) as bus:
        await set_budget(bus, await run_account(bus.store.log, "parent"), change=Budget(calls=5))
        used = BudgetSettled(attempt=1, calls=2, usd="0.5")
        await tell(bus, "parent", WorkflowRequested(goal="g"))
        await tell(bus, "parent", used, stream="parent/budget")
        forked = await tell(bus, "branch", WorkflowForked(parent="parent", position=await bus.head()))
        await set_budget(bus, await run_account(bus.store.log, "parent"), add=Budget(calls=5))
        branch, parent = [(await run_account(bus.store.log, run)).ledger for run in ("branch", "parent")]
        assert (branch.limits, branch.used, branch.open) == (Budget(calls=5), NOTHING, {})
        assert (parent.limits, parent.used.calls) == (Budget(calls=10), 2)
        view = run_view(await bus.history("branch"))
        assert forked
        assert view is not None
        assert view.budget is not None
        assert (view.budget.limits, view.budget.used) == (Budget(calls=5), NOTHING)


@pytest.mark.sqlite_only("about a price, not about a database")
async def test_a_model_without_a_price_is_not_called_for_money(hive_url: str, place: Path) -> None:
    """Nobody knows what it costs: a budget in dollars cannot hold it, so the run asks before the call is made."""

    def nobody_knows(_: str) -> AnthropicModel:
        return AnthropicModel(api_key="none", model="llama9", base_url="http://127.0.0.1:9", timeout=1)

    async with hive_at(hive_url, place, model="llama9", open_model=nobody_knows) as hive:
        run = await hive.start(place.parent / "three.yaml", budget=Budget(usd=Decimal(5)))
        record = await paused(hive, run)
        assert "nobody knows this model's price" in record.data["reason"]
        assert [record.topic for record in await hive.bus.history(run.id) if record.topic == "model.started"] == []


@pytest.mark.sqlite_only("about words, not about a database")
def test_a_budget_is_written_in_one_way_everywhere(tmp_path: Path) -> None:
    """On the command line, in a workflow and in the settings; what is none is refused with the reason."""
    budget, without = parse_budget("usd=2,tokens=200k,time=1h30m,calls=none")
    assert (budget, without) == (Budget(usd=Decimal(2), tokens=200_000, time=5400.0), ("calls",))
    assert budget.plus(Budget(usd=Decimal("0.5"), calls=3)) == Budget(usd=Decimal("2.5"), tokens=200_000, time=5400.0)
    assert budget.but(Budget(calls=1), without=("usd",)) == Budget(tokens=200_000, time=5400.0, calls=1)
    assert Budget.model_validate(budget.limits) == budget
    for wrong in ("", "money=2", "usd", "usd=-1", "usd=nan", "time=soon", "calls=1.5"):
        with pytest.raises(BudgetInvalid):
            parse_budget(wrong)
    (tmp_path / "hive.yaml").write_text("budget: {usd: 20, per: month}\n")
    assert load_settings(directory=tmp_path, environment={}).budget == HiveBudget(usd=Decimal(20), per="month")
    with pytest.raises(SettingInvalid):
        load_settings(directory=tmp_path, environment={"HIVE_BUDGET": "much"})


def test_a_paused_run_ends_the_command_that_shows_it(place: Path, console_database: str) -> None:
    """`hive run` says why, and how to go on, with the exit code of a run that waits; `hive budget` shows and raises."""
    hive = Console(place, console_database)
    done = hive("run", "../three.yaml", "--id", "three-1", "--script", "../answers.json", "--budget", "calls=1")
    assert done.code == 3, done.err
    assert "hive budget three-1 --add calls=20" in done.err
    assert hive("runs", "--status", "paused", "--json").json[0]["budget"]["exceeded"]
    (told,) = hive("budget", "three-1", "--add", "calls=20", "--json").json
    assert (told["limits"]["calls"], told["used"]["calls"], told["exceeded"]) == ("21", 1, "")
    assert hive("budget", "three-1", "--add", "usd=1").code == 2
    assert hive("budget").code == 2
