"""Two real runs beside each other: their effects, their trees, and what `hive diff` says of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dashboard.views import read_comparison
from tests.support.console import Console
from tests.support.hives import EVERYBODY_APPROVED, WITHIN, hive_at, plan, script, use
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
    (as_json,) = (await asyncio.to_thread(console, "diff", *runs, "--json")).json
    assert as_json["tasks"] == [{"task": "note", "output": ["first", "other"]}]
