"""The blocking bus: from threads, plain programs, loops and forked children; it ends by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hive_bus import Event, EventBus, create_task_event, get_event_bus
from hive_errors import BlockingCall, BusClosed, NotFound, PayloadRefused, UnsupportedUrl
from tests.support.patience import WITHIN


class Tick(Event, topic="blocking_test.tick"):
    number: float = 0


@pytest.fixture
def bus(hive_url: str) -> Iterator[EventBus]:
    """A blocking bus on a new file."""
    bus = EventBus(hive_url, source="test")
    yield bus
    bus.close()


def test_a_plain_program_publishes_and_reads(bus: EventBus) -> None:
    """No loop, no await: positions and records come back."""
    assert (
        bus.publish(create_task_event(event_type="assigned", source_agent="a", correlation_id="c1", task_id="t")) == 1
    )
    assert bus.publish(Tick(number=1), correlation_id="c1") == 2
    history = bus.get_event_history("c1")
    assert [record.topic for record in history] == ["task.assigned", "blocking_test.tick"]
    assert [record.source for record in history] == ["a", "test"]
    assert bus.get_trace("c1").roots[0].position == 1


def test_many_threads_share_it(bus: EventBus) -> None:
    """Every event is in the log once, each thread's in its order."""

    def work(name: int) -> list[int]:
        return [bus.publish(Tick(number=number), stream=f"s{name}") for number in range(25)]

    with ThreadPoolExecutor(8) as threads:
        positions = list(threads.map(work, range(8)))
    assert sorted(position for mine in positions for position in mine) == list(range(1, 201))
    assert all(mine == sorted(mine) for mine in positions)
    assert [record.data["number"] for record in bus.get_event_history("s3")] == list(range(25))


def test_errors_reach_the_caller(bus: EventBus) -> None:
    """They are raised where the call was made, and the bus goes on."""
    with pytest.raises(PayloadRefused):
        bus.publish(Tick(number=float("nan")))
    with pytest.raises(NotFound):
        bus.get_event_history("nothing")
    assert bus.publish(Tick()) == 1


async def test_a_running_loop_is_never_blocked(bus: EventBus) -> None:
    """Each blocking method refuses, and names what to await there."""
    for call, instead in (
        (lambda: bus.publish(Tick()), "publish_async"),
        (lambda: bus.get_event_history("c"), "get_event_history_async"),
        (lambda: bus.get_trace("c"), "get_trace_async"),
        (bus.close, "close_async"),
    ):
        with pytest.raises(BlockingCall) as refused:
            call()
        assert instead in refused.value.advice
    assert await bus.publish_async(Tick(), correlation_id="c1") == 1
    assert len(await bus.get_event_history_async("c1")) == 1
    assert len(list((await bus.get_trace_async("c1")).walk())) == 1
    await bus.close_async()


def test_any_loop_may_await_it(bus: EventBus) -> None:
    """Loops of several threads, one after the other and at once."""

    async def several(count: int) -> list[int]:
        return list(await asyncio.gather(*(bus.publish_async(Tick()) for _ in range(count))))

    with ThreadPoolExecutor(3) as threads:
        results = [*threads.map(lambda _: asyncio.run(several(20)), range(3)), asyncio.run(several(20))]
    assert sorted(position for result in results for position in result) == list(range(1, 81))


async def test_a_cancelled_wait_leaves_the_event_whole(bus: EventBus) -> None:
    """Who stops waiting disturbs nobody."""
    await bus.publish_async(Tick(number=1), correlation_id="c")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(bus.publish_async(Tick(number=2), correlation_id="c"))
        await asyncio.sleep(0)
        waiting.cancel()
    assert await bus.publish_async(Tick(number=3), correlation_id="c") in {2, 3}
    await bus.close_async()


def test_closing_twice_is_fine_and_publishing_afterwards_is_not(bus: EventBus) -> None:
    """Also for a bus that was never used."""
    bus.close()
    bus.close()
    assert bus.closed
    with pytest.raises(BusClosed):
        bus.publish(Tick())


def test_closing_answers_calls_under_way(hive_url: str) -> None:
    """A call is answered with its position or with BusClosed, never left hanging, and every position is in the log."""
    bus = EventBus(hive_url)
    bus.publish(Tick())
    answers: list[int] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                answers.append(bus.publish(Tick()))
        except BusClosed:
            return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(answers) < 20:
        os.sched_yield()
    bus.close()
    for thread in threads:
        thread.join()
    again = EventBus(hive_url)
    assert again.publish(Tick()) == len(answers) + 2
    again.close()


def test_what_cannot_be_opened_says_so_at_every_use() -> None:
    """The address is named; closing it is fine."""
    bus = EventBus("mysql://somewhere/db")
    for _ in range(2):
        with pytest.raises(UnsupportedUrl, match="mysql"):
            bus.publish(Tick())
    assert bus.closed
    bus.close()


def test_the_process_has_one(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread gets the same; after a close there is a new one."""
    monkeypatch.setenv("HIVE_DB", hive_url)
    with ThreadPoolExecutor(4) as threads:
        buses = set(threads.map(lambda _: get_event_bus(), range(16)))
    assert len(buses) == 1
    first = buses.pop()
    first.publish(Tick())
    first.close()
    second = get_event_bus()
    assert second is not first
    assert second.publish(Tick()) == 2
    second.close()


def test_a_forked_child_has_its_own(bus: EventBus) -> None:
    """The same object works on both sides of a fork, each with its own connection."""
    assert bus.publish(Tick(number=1), stream="s") == 1
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if bus.publish(Tick(number=2), stream="s") == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bus.publish(Tick(number=3), stream="s") == 3
    assert [record.data["number"] for record in bus.get_event_history("s")] == [1, 2, 3]


PROGRAM = """
    import sys
    from hive_bus import get_event_bus, create_task_event, TaskEventType
    bus = get_event_bus()
    event = create_task_event(
        event_type=TaskEventType.COMPLETED, source_agent="p", correlation_id="c", task_id="t"
    )
    print(bus.publish(event), len(bus.get_event_history("c")))
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(3)", 3), ("raise RuntimeError('own')", 1)])
def test_a_program_ends_without_closing(tmp_path: Path, end: str, code: int) -> None:
    """The bus closes itself when the program ends, however it ends: nothing hangs, nothing is left beside the file."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM.format(end=end))],
        env={**os.environ, "HIVE_DB": f"sqlite:///{tmp_path / 'a.db'}"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (run.returncode, run.stdout) == (code, "1 1\n")
    assert "own" in run.stderr if code == 1 else not run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
