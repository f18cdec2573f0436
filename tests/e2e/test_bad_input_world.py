"""Bad input at the level of the whole hive: what the world does to it in mid-run. The table of all items is in test_bad_input_given.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.hive import Hive
from hive_bus import Agent, Brain, Bus, Context, Record, open_bus
from hive_bus.brains.brain import Input
from hive_bus.codec import digest
from hive_bus.event import Draft, Event
from hive_core_db.engine import open_store
from hive_errors import StoreUnavailable, UndecodableEvent
from tests.support.hives import (
    EVERYBODY_APPROVED,
    bodies,
    findings,
    finished,
    hive_at,
    plan,
    script,
    topics,
    use,
)
from tests.support.patience import WITHIN
from tests.support.repositories import make_checkout
from tests.support.tables import change, file_of, sqlite_url

SIZE = 4 * 1024 * 1024
NOTE = "n" * 40_000
FINE = "- {id: a, run: echo fine}\n"
ASKS = "- {id: a, run: echo fine, approval: Really?}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's checkout with two files."""
    return make_checkout(tmp_path / "work")


def flow(tmp_path: Path, steps: str) -> Path:
    """A workflow file with these steps."""
    path = tmp_path / "flow.yaml"
    path.write_text(f"name: x\nsteps:\n{steps}")
    return path


class Gate:
    """A named pipe that a step waits at, so that a test knows where the run is."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "gate"
        self.reached = directory / "reached"
        os.mkfifo(self.path)
        os.mkfifo(self.reached)
        # The command that waits at the gate: it says that it is there, then reads until somebody writes.
        self.command = f"echo >{self.reached}; read _ <{self.path}"

    async def wait(self) -> None:
        """Return when a step is there."""
        await asyncio.to_thread(self.reached.read_text)

    async def open(self) -> None:
        """Let it through."""
        await asyncio.to_thread(self.path.write_text, "\n")


def chain(ledger: Path, gate: Gate, length: int) -> str:
    """Steps one after the other that say a lot and write a line into the ledger; the second waits at the gate."""
    steps = [
        f"- {{id: s0, run: 'echo 0 >>{ledger}'}}",
        f"- {{id: s1, needs: s0, run: 'echo 1 >>{ledger}; {gate.command}'}}",
    ]
    for number in range(2, length):
        run = f"echo {number} >>{ledger}; printf %s {number}{NOTE}"
        steps.append(f"- {{id: s{number}, needs: s{number - 1}, run: '{run}'}}")
    return "\n".join(steps) + "\n"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Closed."""
    return Gate(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes; where none may be mounted, an ordinary directory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    may_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if may_mount and subprocess.run(command, check=False, capture_output=True).returncode == 0:
        yield place
        subprocess.run(["umount", str(place)], check=True)
    else:
        yield place


async def test_a_full_disk_in_mid_run(
    small_disk: Path, tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """The run stands still while nothing fits, says so, and goes on when there is room: every step is done once, nothing is lost."""
    url = f"sqlite:///{small_disk}/hive.db"
    ballast = small_disk / "ballast"
    ledger = tmp_path / "ledger"
    async with _disk(url, small_disk) as (bus, fill, make_room), Hive(bus=bus, workspace=tmp_path) as hive:
        run = await hive.start(flow(tmp_path, chain(ledger, gate, 6)))
        await gate.wait()
        await fill(ballast)
        await gate.open()
        await said("append.again", caplog)
        assert await run.ended() is None
        await make_room(ballast)
        result, records = await finished(run)
    assert result.status == "completed"
    assert [body["task_id"] for body in bodies(records, "task.completed")] == [f"s{n}" for n in range(6)]
    assert ledger.read_text().split() == list("012345")
    assert await asyncio.to_thread(findings, url) == []


async def said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Return when the log has such a line."""
    async with asyncio.timeout(WITHIN):
        while name not in caplog.text:
            await asyncio.sleep(0)


@asynccontextmanager
async def _disk(url: str, disk: Path) -> AsyncIterator[tuple[Bus, Any, Any]]:
    """A bus on a disk that can be filled; where it is no disk of its own, SQLite's limit on pages stands in."""
    mounted = os.path.ismount(disk)
    store = await open_store(url)

    async def pages(count: int) -> None:
        runner = store._runner  # type: ignore[attr-defined]
        await runner.write(lambda db: db.execute(f"PRAGMA max_page_count={count}").fetchone())

    async def fill(ballast: Path) -> None:
        if not mounted:
            await pages(60)
            return
        free = shutil.disk_usage(disk).free
        await asyncio.to_thread(ballast.write_bytes, b"\0" * max(free - 60_000, 0))

    async def make_room(ballast: Path) -> None:
        if mounted:
            await asyncio.to_thread(ballast.unlink)
        else:
            await pages(1_000_000)

    async with open_bus(store=store, source="hive") as bus:
        yield bus, fill, make_room


@pytest.mark.sqlite_only("PostgreSQL has no lock on a whole database")
@pytest.mark.parametrize("when", ["at the start", "in mid-run"])
async def test_a_file_locked_by_another_program_in_mid_run(
    when: str, tmp_path: Path, hive_url: str, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program holds the file for longer than the store waits: the run goes on when it lets go, nothing is done twice."""
    ledger = tmp_path / "ledger"
    store = await open_store(hive_url, busy_timeout=0.05)
    other = sqlite3.connect(sqlite_url(hive_url).path, isolation_level=None, check_same_thread=False)
    async with open_bus(store=store, source="hive") as bus, Hive(bus=bus, workspace=tmp_path) as hive:
        run = await hive.start(flow(tmp_path, chain(ledger, gate, 4)))
        if when == "in mid-run":
            await gate.wait()
        await locked(other)
        if when == "in mid-run":
            await gate.open()
            await said("append.again", caplog)
        else:
            await said(".again", caplog)
        assert await run.ended() is None
        other.execute("COMMIT")
        if when == "at the start":
            await gate.wait()
            await gate.open()
        result, records = await finished(run)
    other.close()
    assert result.status == "completed"
    assert "database is locked" not in str([record.data for record in records])
    assert ledger.read_text().split() == list("0123")
    assert await asyncio.to_thread(findings, hive_url) == []


async def locked(other: sqlite3.Connection) -> None:
    """Take the file, which the hive holds for an instant with every commit."""
    while True:
        try:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            continue
        return


async def test_an_unregistered_topic_disturbs_nobody(tmp_path: Path, hive_url: str) -> None:
    """An event of a program that this one does not know, in a run: readers get its data, brains pass it over, the run completes."""

    class WeatherChanged(Event):
        sunny: bool

    async with hive_at(hive_url, tmp_path) as hive:
        run = await hive.start(flow(tmp_path, ASKS))
        async for record in run.events():
            if record.topic == "approval.requested":
                break
        with pytest.raises(Exception, match="topic"):
            await hive.bus.publish(WeatherChanged(sunny=True), correlation_id=run.id)
        await asyncio.to_thread(_insert, hive_url, run.id, "weather.changed", '{"sunny":true}')
        await hive.approve(run.id)
        result, records = await finished(run)
    assert (result.status, result.output) == ("completed", "fine")
    (foreign,) = [record for record in records if record.topic == "weather.changed"]
    assert foreign.data == {"sunny": True}
    assert type(foreign.event).__name__ == "RawEvent"


def _insert(url: str, run: str, topic: str, payload: str) -> None:
    """Append as a program of another version does: behind the last event, into a stream of its own, when nobody else appends."""
    head = [] if file_of(url) is not None else ["SELECT hive_lock_head()"]
    change(
        url,
        *head,
        "INSERT INTO events (position, event_id, stream, version, topic, correlation_id, source, schema_version, payload, "
        "digest, append_first, occurred_at, recorded_at) "
        f"SELECT max(position) + 1, 'foreign-1', '{run}/foreign', 1, '{topic}', '{run}', 'foreign', 1, '{payload}', "
        f"'{digest(payload.encode())}', max(position) + 1, max(occurred_at), max(recorded_at) FROM events",
        f"INSERT INTO topics VALUES ('{topic}') ON CONFLICT DO NOTHING",
    )


async def test_a_payload_that_is_not_json_parks_its_run_alone(tmp_path: Path, hive_url: str) -> None:
    """Bytes that somebody broke in the file: that run stands aside with the reason, every other run goes on, the process stays up."""
    async with Hive(hive_url, workspace=tmp_path) as hive:
        broken, sound = [await hive.start(flow(tmp_path, ASKS)) for _ in range(2)]
        for run in (broken, sound):
            async for record in run.events():
                if record.topic == "approval.requested":
                    break
        await asyncio.to_thread(_insert, hive_url, broken.id, "workflow.pause_requested", "{reason: none")
        async with asyncio.timeout(WITHIN), hive.bus.subscribe("system.parked", start=0) as parked:
            record = await anext(parked)
        assert record.data["key"] == broken.id
        assert record.data["group"].startswith("brain/")
        assert "workflow.pause_requested" in record.data["error"]
        await hive.approve(sound.id)
        assert (await sound.result(within=WITHIN)).output == "fine"
        (bad,) = [one for one in await hive.bus.history(broken.id) if one.topic == "workflow.pause_requested"]
        with pytest.raises(UndecodableEvent):
            _ = bad.event


async def test_a_handler_that_raises_is_parked_and_the_run_goes_on(tmp_path: Path, hive_url: str) -> None:
    """An agent that follows the run's events and fails on one parks that key, with the error; the run completes all the same."""
    watcher = Agent("watcher")

    @watcher.on("task.completed", key=lambda record: record.data["task_id"])
    async def look(record: Record, ctx: Context) -> None:
        if record.data["task_id"] == "b":
            raise ValueError("I cannot bear b")

    async with hive_at(hive_url, tmp_path) as hive, asyncio.TaskGroup() as group:
        watching = group.create_task(watcher.run(hive.bus))
        async with hive.bus.subscribe("agent.online", start=0) as online:
            async for here in online:
                if here.data["name"] == "watcher":
                    break
        async with asyncio.timeout(WITHIN), hive.bus.subscribe("system.parked", start=0) as parked:
            run = await hive.start(flow(tmp_path, "- {id: a, run: echo a}\n- {id: b, run: echo b}\n"))
            result, _ = await finished(run)
            record = await anext(parked)
        watching.cancel()
    assert result.status == "completed"
    assert record.data["key"] == "b"
    assert "ValueError: I cannot bear b" in record.data["error"]


class Grumpy(Brain[int]):
    """A user's brain that cannot bear a step's failure."""

    name = "grumpy"
    folds = ("task.created", "task.failed")
    opens = "task.created"

    def initial(self) -> int:
        """Nothing seen."""
        return 0

    def evolve(self, state: int, record: Input) -> int:
        """Count, and fail on a failure."""
        if record.topic == "task.failed":
            raise ValueError("no failures, please")
        return state + 1

    def decide(self, state: int, record: Input) -> Sequence[Event | Draft]:
        """Nothing."""
        return ()


async def test_a_brain_that_raises_stands_aside_and_the_others_decide(tmp_path: Path, hive_url: str) -> None:
    """A program's own brain with a bug parks that run's key in its own group; the hive's brains take the run to its end."""
    async with hive_at(hive_url, tmp_path, brains=[Grumpy()]) as hive:
        failing = await hive.start(flow(tmp_path, "- {id: a, run: 'false'}\n"))
        result, records = await finished(failing)
        async with asyncio.timeout(WITHIN), hive.bus.subscribe("system.parked", start=0) as parked:
            record = await anext(parked)
        assert record.data["group"] == "brain/grumpy"
        assert "ValueError: no failures, please" in record.data["error"]
        fine = await hive.start(flow(tmp_path, FINE))
        assert (await fine.result(within=WITHIN)).output == "fine"
    assert result.status == "failed"
    assert topics(records).count("task.failed") == 1


async def test_a_full_disk_where_drones_work_is_the_tools_error(
    small_disk: Path, tmp_path: Path, hive_url: str, gate: Gate
) -> None:
    """The repository's disk is full: a drone is told that its file was not written, and goes on; so does the hive."""
    repository = make_checkout(small_disk / "work")
    writes = use("write", path="big.txt", content="x" * 300_000)
    drone = [use("command", command=gate.command), writes, use("list", path="."), {"text": "I could not."}]
    model = script(
        tmp_path / "answers.yaml",
        planner={"": [plan({"id": "fix", "prompt": "Write."})]},
        drone={"fix": drone},
        reviewer=EVERYBODY_APPROVED,
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        run = await hive.start("write")
        await gate.wait()
        if os.path.ismount(small_disk):
            free = shutil.disk_usage(small_disk).free
            await asyncio.to_thread((small_disk / "ballast").write_bytes, b"\0" * (free - 150_000))
        await gate.open()
        result, records = await finished(run)
        fine = await Hive(bus=hive.bus, workspace=tmp_path, serve=False).start(flow(tmp_path, FINE))
        assert (await fine.result(within=WITHIN)).output == "fine"
    assert result.status == "completed"
    if os.path.ismount(small_disk):
        (call,) = bodies(records, "tool.returned", tool="write")
        assert call["is_error"]
        assert "No space left" in call["output"]
        assert not (repository / "big.txt").exists()


async def test_a_database_that_breaks_for_good_is_raised_where_somebody_waits(
    tmp_path: Path, hive_url: str, gate: Gate
) -> None:
    """Somebody drops a table in mid-run: whoever waits for the run gets the error instead of waiting for ever."""
    steps = flow(tmp_path, chain(tmp_path / "ledger", gate, 3))

    async def wait_for_it() -> None:
        async with Hive(hive_url, workspace=tmp_path) as hive:
            run = await hive.start(steps)
            await gate.wait()
            await asyncio.to_thread(change, hive_url, "DROP TABLE partitions")
            await gate.open()
            await run.result()

    with pytest.raises(StoreUnavailable, match=r"no such table|does not exist"):
        await wait_for_it()
