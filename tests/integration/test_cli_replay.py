"""`hive replay`: a recorded run plays again, line by line on a pipe, drawn on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.cli.playing import LONGEST, Pace
from hive_bus import Event, Record, open_bus
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.engine import open_store
from tests.contract.making import Clock
from tests.support.console import Console, screen

pytestmark = pytest.mark.sqlite_only("about what is shown of a log, not about a database")


class Beat(Event, topic="replay.beat"):
    pass


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> Console:
    """A hive in which one run completed."""
    directory = tmp_path_factory.mktemp("hive")
    (directory / "two.yaml").write_text("steps: [{id: a, run: echo 1}, {id: b, run: echo 2, needs: [a]}]\nname: two\n")
    console = Console(directory)
    assert console("run", "two.yaml", "--id", "two-1").code == 0
    return console


def test_on_a_pipe_every_line_comes_with_its_time(hive: Console) -> None:
    """The lines that `hive run` said while it happened; as JSON every event; `--until` ends it before."""
    done = hive("replay", "two-1", "--speed", "max")
    said = [line.split("s  ", 1)[1] for line in done.out.splitlines()]
    assert [" ".join(line.split()[:3]) for line in said] == [
        "run two-1: two",
        "a starts",
        "a ✓ completed:",
        "b starts",
        "b ✓ completed:",
    ]
    assert done.code == 0
    events = hive("trace", "two-1", "--as", "log", "--json").out
    assert hive("replay", "two-1", "--speed", "max", "--json").out == events
    assert len(hive("replay", "two-1", "--speed", "max", "--until", "@3", "--json").json) == 3
    assert hive("replay", "two-1", "--speed", "quick").code == 2
    assert hive("replay", "two-1", "--until", "@300").code == 2


def test_on_a_terminal_the_trace_grows_and_stays(hive: Console) -> None:
    """In the end it is the trace; a key ends it before, and the terminal is as it was."""
    code, written = hive.terminal("replay", "two-1", "--speed", "max")
    assert code == 0
    assert screen(written) == screen(hive.terminal("trace", "two-1")[1])
    pressed: list[str] = []

    def press(said: str) -> str | None:
        if "two-1" in said and not pressed:
            pressed.append("q")
            return "q"
        return None

    code, written = hive.terminal("replay", "two-1", "--speed", "0.001", say=press)
    assert code == 0
    assert "ended at position " in screen(written)


def test_waits_are_as_long_as_they_were_and_long_ones_are_cut(tmp_path: Path) -> None:
    """Half a second at twice the speed is a quarter; an hour is two seconds, and is told; the clock runs in between."""

    async def main(loop: SimulatedLoop) -> None:
        clock = Clock()
        store = await open_store(f"sqlite:///{tmp_path / 'hive.db'}", now=clock, inline=True, durable=False)
        async with open_bus(store=store) as bus:
            for seconds in (0.5, 3600.0, 0.0):
                await bus.publish(Beat(), correlation_id="beats")
                clock.pass_time(seconds)
            records = await bus.history("beats")
        pace = Pace(2.0)
        began = loop.time()
        shown: list[tuple[float, float]] = []
        clocks: list[int] = []
        loop.call_later(0.125, lambda: clocks.append(pace.now() - records[0].recorded_at))
        async for record, passed in pace.play(records):
            assert isinstance(record, Record)
            shown.append((round(loop.time() - began, 2), passed))
        assert shown == [(0.0, 0.0), (0.25, 0.0), (0.25 + LONGEST, 3600.0)]
        assert clocks == [pytest.approx(250_000, rel=0.05)]
        assert [one async for one in Pace(None).play(records)] == [(record, 0.0) for record in records]

    run_simulated(1, main)
