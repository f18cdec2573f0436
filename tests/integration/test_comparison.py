"""Two real runs beside each other: their effects, their trees, and what `hive diff` says of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dashboard.views import read_comparison, read_why
from hive_bus import Bus
from hive_errors import NotFound
from tests.support.console import Console
from tests.support.hives import EVERYBODY_APPROVED, hive_at, plan, script, use
from tests.support.patience import WITHIN
from tests.support.repositories import make_checkout


async def test_runs_are_compared_with_their_files(tmp_path: Path, hive_url: str) -> None:
    """One reads the same, writes another text and one file more: that, and nothing else, is told; itself is like itself."""
    place = make_checkout(tmp_path / "src")
    step = {"id": "note", "prompt": "Write a note."}

    def answers(name: str, *more: dict[str, object]) -> str:
        drone = [use("read", path="one.txt"), use("write", path="note.txt", content=f"{name}\n"), *more, {"text": name}]
        return script(
            tmp_path / f"{name}.json", planner={"": [plan(step)]}, drone={"note": drone}, reviewer=EVERYBODY_APPROVED
        )

    runs = []
    async with hive_at(hive_url, place) as hive:
        for name, more in (("first", []), ("other", [use("write", path="more.txt", content="more\n")])):
            run = await hive.start("Make a note", id=f"{name}-run", model=answers(name, *more))
            assert (await run.result(within=WITHIN)).status == "completed"
            runs.append(run.id)
        comparison = await read_comparison(hive.bus, *runs, patch=True)
        assert (await read_comparison(hive.bus, runs[0], runs[0])).empty
        await _is_explained(hive.bus, runs[1])
    assert [(file.path, file.state, file.added, file.removed) for file in comparison.files or ()] == [
        ("more.txt", "A", 1, 0),
        ("note.txt", "M", 1, 1),
    ]
    assert "+other" in comparison.patch
    assert {change.task: change.fields for change in comparison.tasks} == {"note": {"output": ("first", "other")}}
    console = Console(tmp_path, hive_url)
    told = await asyncio.to_thread(console, "diff", *runs, "--files")
    assert told.code == 1, told.err
    assert "A more.txt  +1 -0" in told.out
    assert "+other" in told.out
    explained = await asyncio.to_thread(console, "why", "more.txt", "--run", runs[1])
    assert explained.code == 0, explained.err
    assert "drone note.1: write more.txt" in explained.out
    (as_json,) = (await asyncio.to_thread(console, "diff", *runs, "--json")).json
    assert as_json["tasks"] == [{"task": "note", "output": ["first", "other"]}]


async def _is_explained(bus: Bus, run: str) -> None:
    """Why a file, a charge and an event are as they are: from the goal, by every name that they have."""
    file = await read_why(bus, "note.txt", run=run)
    (wrote,) = file.writers
    assert (wrote.drone, wrote.task, wrote.try_number, wrote.what, wrote.merged) == (
        "note.1",
        "note",
        1,
        "write note.txt",
        True,
    )
    assert [(verdict, by) for verdict, by, _ in wrote.reviews] == [("approved", "reviewer (scripted:other.json)")]
    assert file.steps[0].what == "asked for: Make a note"
    assert file.steps[-1].what.startswith("write note.txt")
    assert [step.position for step in file.steps] == sorted(step.position for step in file.steps)
    charge = next(record for record in reversed(await bus.history(run)) if record.topic == "model.responded")
    for name in (str(charge.position), charge.event_id, charge.event_id[:23]):
        view = await read_why(bus, name, run=run)
        assert view.what.startswith("$"), view.what
        assert view.steps[-1].event_id == charge.event_id
    for name in ("nothing.txt", "0", str(10**9), charge.event_id[:4]):
        with pytest.raises(NotFound):
            await read_why(bus, name)
