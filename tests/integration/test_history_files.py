"""History files: what is exported from one hive is the same run in another, where nothing of it is done again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agents.colony import Colony
from agents.hive import Hive
from agents.workflows.workflow import Step, Workflow
from dashboard.cli.redriving import differences_of_file
from hive_bus import labels, moment_of, open_bus, set_label
from hive_bus.events import WorkflowForked, WorkflowRequested
from hive_bus.lineage import lineage
from hive_bus.replay.transfer import export_history, import_history, read_history
from hive_core_db.audit import audit
from hive_errors import HistoryUnusable
from tests.conftest import HiveUrls
from tests.golden.record import HISTORIES
from tests.support.patience import WITHIN

DEMO = HISTORIES / "demo-0.1.0.jsonl"
LARGE = "x" * 100_000
FLOW = Workflow(name="flow", steps=(Step(id="a", run="echo 1"), Step(id="b", run="echo 2", needs=("a",))))


async def test_a_hive_that_serves_does_nothing_with_what_it_imports(hive_urls: HiveUrls, tmp_path: Path) -> None:
    """Its brains read the run and decide nothing; it is traced with its own times; a second import changes nothing."""
    file, there = tmp_path / "run.jsonl", hive_urls()
    async with Hive(hive_urls(), workspace=tmp_path) as hive:
        run = await hive.start(FLOW, id="run-1", metadata={"by": "ada"})
        assert (await run.result(within=WITHIN)).status == "completed"
        before = await hive.bus.history("run-1")
        assert await export_history(hive.bus.store.log, file, run="run-1") == len(before)
    rows = await asyncio.to_thread(read_history, file)
    async with Hive(there, workspace=tmp_path) as hive:
        other = await hive.start(FLOW, id="run-2")
        await other.result(within=WITHIN)
        (done,) = await import_history(hive.bus, rows)
        assert (done.correlations, done.events, done.already) == (("run-1",), len(rows), False)
        third = await hive.start(FLOW, id="run-3")
        await third.result(within=WITHIN)
        after = await hive.bus.history("run-1")
        assert [(row.event_id, row.stream, row.topic, row.payload, row.decided_by) for row in after] == [
            (row.event_id, row.stream, row.topic, row.payload, row.decided_by) for row in before
        ]
        assert [row.recorded_at for row in after] == [row.recorded_at for row in before]
        assert after[0].metadata["by"] == "ada"
        assert (await moment_of(hive.bus, "@1", run="run-1")).time == before[0].recorded_at
        head = await hive.bus.head()
        assert [one.already for one in await import_history(hive.bus, rows)] == [True]
        assert await hive.bus.head() == head
    assert await asyncio.to_thread(lambda: list(map(str, audit(there)))) == []


async def test_what_is_taken_or_open_is_refused_whole(hive_urls: HiveUrls, tmp_path: Path) -> None:
    """An id that another run has here; a run whose effects have not ended; and nothing of either is in the log then."""
    file = tmp_path / "run.jsonl"
    async with Hive(hive_urls(), workspace=tmp_path, serve=False) as hive:
        colony = Colony(hive.bus)
        run = await hive.start(Workflow(name="w", steps=(Step(id="a", run="echo 1", approval="Really?"),)), id="run-1")
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(colony.run())
            async for record in run.events():
                if record.topic == "approval.requested":
                    break
            serving.cancel()
        await export_history(hive.bus.store.log, file, run="run-1")
    rows = read_history(file)
    async with open_bus(hive_urls()) as bus:
        with pytest.raises(HistoryUnusable, match=r"approval\.requested at position \d+ has not ended"):
            await import_history(bus, rows)
        assert await bus.head() == 0
        await bus.publish(WorkflowRequested(goal="another"), stream="run-1/run", correlation_id="run-1")
        asked = [row for row in rows if row.topic == "workflow.requested"]
        with pytest.raises(HistoryUnusable, match="other events of that correlation id"):
            await import_history(bus, asked)
        assert await bus.head() == 1


async def test_a_branch_comes_with_its_ancestors_and_labels_with_their_places(
    hive_urls: HiveUrls, tmp_path: Path
) -> None:
    """What names a position names the same event under the new number; a body as large as a blob is whole."""
    file = tmp_path / "run.jsonl"
    async with open_bus(hive_urls()) as bus:
        for number in range(4):
            goal = WorkflowRequested(goal=LARGE if number == 2 else str(number))
            await bus.publish(goal, stream="old/run", correlation_id="old")
        await set_label(bus, "old", "here")
        await bus.publish(WorkflowForked(parent="old", position=2), stream="new/run", correlation_id="new")
        await bus.publish(WorkflowForked(parent="new", position=6), stream="newest/run", correlation_id="newest")
        assert await export_history(bus.store.log, file, run="newest") == 7
    async with open_bus(hive_urls()) as bus:
        await bus.publish(WorkflowRequested(goal="mine"), stream="mine/run", correlation_id="mine")
        await import_history(bus, read_history(file))
        assert [row.position for row in await bus.history("newest")] == [2, 3, 6, 7]
        assert [part.upto for part in await lineage(bus.store.log, "newest")] == [3, 6, None]
        assert (await bus.history("old"))[2].data["goal"] == LARGE
        assert [(one.name, one.position) for one in await labels(bus.store.log, "old")] == [("here", 5)]


@pytest.mark.sqlite_only("about a file")
async def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path) -> None:
    """No JSON, no event, another body than its digest is of, no file at all."""
    file = tmp_path / "run.jsonl"
    lines = DEMO.read_text().splitlines()
    other = json.dumps(json.loads(lines[1]) | {"payload": "{}"})
    text = json.dumps(json.loads(lines[1]) | {"position": "2"})
    untold = json.dumps(json.loads(lines[1]) | {"metadata": "{"})
    damaged = (
        ("{", "JSON"),
        ('{"position": 1}', "event_id: Field required"),
        (other, "digest"),
        ("[]", "position: Field required"),
    )
    for line, reason in (*damaged, (text, "position: Input should be"), (untold, "no JSON")):
        file.write_text("\n".join([lines[0], line]))
        with pytest.raises(HistoryUnusable, match=reason) as caught:
            read_history(file)
        assert caught.value.file == f"{file}:2"
    with pytest.raises(HistoryUnusable, match="cannot be read"):
        read_history(tmp_path / "nothing.jsonl")
    with pytest.raises(HistoryUnusable, match="cannot be read"):
        _ = [one async for one in differences_of_file(tmp_path)]


@pytest.mark.sqlite_only("about a file")
async def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """Nothing in it, a line lost from its middle, a line twice, a branch without what it was forked from."""
    file = tmp_path / "run.jsonl"
    lines = DEMO.read_text().splitlines()
    cases: tuple[tuple[list[str], str], ...] = (
        ([], "holds no event"),
        ([*lines[:4], *lines[5:]], r"event \d+ of stream \S+/run is not in it"),
        ([*lines, lines[-1]], "two of its events have the event id"),
    )
    for kept, reason in cases:
        file.write_text("".join(f"{line}\n" for line in kept))
        with pytest.raises(HistoryUnusable, match=reason):
            read_history(file)
    async with open_bus(str(tmp_path / "one.db")) as bus:
        await bus.publish(WorkflowRequested(goal="1"), stream="old/run", correlation_id="old")
        await bus.publish(WorkflowForked(parent="old", position=1), stream="new/run", correlation_id="new")
        await export_history(bus.store.log, file, run="new")
    rows = [row for row in read_history(file) if row.correlation_id == "new"]
    async with open_bus(str(tmp_path / "two.db")) as bus:
        with pytest.raises(HistoryUnusable, match="branch of old, of which the file holds nothing"):
            await import_history(bus, rows)


async def test_a_branch_of_a_branch_s_inherited_past_comes_whole(hive_urls: HiveUrls, tmp_path: Path) -> None:
    """Its parent gave it nothing of its own; positions that other runs had in the file they came from mean the same moment."""
    file = tmp_path / "run.jsonl"
    async with open_bus(hive_urls()) as bus:
        for number in range(2):
            await bus.publish(WorkflowRequested(goal=str(number)), stream="old/run", correlation_id="old")
        await bus.publish(WorkflowForked(parent="old", position=2), stream="mid/run", correlation_id="mid")
        await bus.publish(WorkflowRequested(goal="mid"), stream="mid/run", correlation_id="mid")
        await bus.publish(WorkflowRequested(goal="late"), stream="old/run", correlation_id="old")
        # Forked before its parent began, and from a moment of the other's: both see the first two events alone.
        await bus.publish(WorkflowForked(parent="mid", position=1), stream="new/run", correlation_id="new")
        await bus.publish(WorkflowForked(parent="old", position=4), stream="side/run", correlation_id="side")
        there = {run: [row.event_id for row in await bus.history(run)] for run in ("new", "side")}
        assert await export_history(bus.store.log, file, run="new") == 6
        await export_history(bus.store.log, file)
    async with open_bus(hive_urls()) as bus:
        await import_history(bus, read_history(file))
        assert {run: [row.event_id for row in await bus.history(run)] for run in there} == there
