"""What somebody at a terminal sees: progress that is drawn over itself, traces that grow, questions, errors."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.console import Console, screen
from tests.support.nats_server import NatsServer
from tests.support.patience import WITHIN

STEPS = """\
name: steps
steps:
  - {id: one, run: echo 1}
  - {id: two, run: 'while ! test -e go; do sleep 0.05; done', needs: [one]}
"""
SPEAKS = """\
name: speaks
steps:
  - {id: tell, run: 'printf "\\033[2J\\033]0;title\\007 10%%\\r 20%%"; while ! test -e go; do sleep 0.05; done; echo'}
"""
ASKS = """\
name: asks
steps:
  - {id: ship, run: echo shipped, approval: Ship it now?}
"""


@pytest.fixture
def hive(tmp_path: Path) -> Console:
    """A directory with two workflows."""
    (tmp_path / "steps.yaml").write_text(STEPS)
    (tmp_path / "asks.yaml").write_text(ASKS)
    (tmp_path / "speaks.yaml").write_text(SPEAKS)
    return Console(tmp_path)


def test_what_works_is_drawn_and_gone_at_the_end(hive: Console) -> None:
    """While a run goes on its working tasks stand below the lines; afterwards only lines and the result are left."""

    def go_on(written: str) -> str | None:
        if "1 of 2 tasks" in written and "working" in written:
            (hive.directory / "go").touch()
        return None

    code, written = hive.terminal("run", "steps.yaml", columns=80, say=go_on)
    assert code == 0
    assert "1 of 2 tasks" in written
    left = screen(written)
    assert "1 of 2 tasks" not in left
    assert [line.split()[0] for line in left.splitlines()[-4:]] == ["run", "✓", "✓", "next:"]


def test_what_a_step_says_is_drawn_below_it(hive: Console) -> None:
    """The last words of a command stand below its step while it runs, without what would move the cursor, and are gone at the end."""

    def go_on(written: str) -> str | None:
        if "┆ 20%" in written:
            (hive.directory / "go").touch()
        return None

    code, written = hive.terminal("run", "speaks.yaml", columns=80, say=go_on)
    assert code == 0
    below, said = written.split("┆ 20%")[0].splitlines()[-2:]
    assert "tell  working" in below
    assert "10%" not in said
    assert not {"\x1b[2J", "\x1b]0;"} & set(re.findall(r"\x1b\[2J|\x1b]0;", written))
    assert "┆" not in screen(written)
    piped = hive("run", "speaks.yaml")
    assert "┆" not in piped.err + piped.out


def test_a_trace_that_grows_says_what_is_said(hive: Console, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`trace --follow` shows below the tree what another process's command says, over NATS; JSON is as it was."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        (hive.directory / "hive.yaml").write_text(f"nats: {server.url}\n")
        # It says the same again and again, for nothing is kept for who comes later.
        (hive.directory / "speaks.yaml").write_text(SPEAKS.replace("do sleep", 'do printf "\\r 20%%"; sleep'))
        (name,) = hive("run", "speaks.yaml", "--detach").out.split()
        up = hive.start("up")
        try:

            def go_on(written: str) -> str | None:
                if "┆ tell          20%" in written:
                    (hive.directory / "go").touch()
                return None

            code, written = hive.terminal("trace", name, "--follow", say=go_on)
        finally:
            up.send_signal(signal.SIGTERM)
            up.communicate(timeout=WITHIN)
    assert code == 0
    left = screen(written)
    assert "┆" not in left
    assert "✓ completed" in left


@pytest.mark.parametrize("shape", ["tree", "timeline"])
def test_a_trace_grows_until_the_run_ends(hive: Console, shape: str) -> None:
    """`trace --follow` redraws while another process works, and leaves the whole trace."""
    (name,) = hive("run", "steps.yaml", "--detach").out.split()
    server = hive.start("up")
    try:

        def go_on(written: str) -> str | None:
            if "two" in written:
                (hive.directory / "go").touch()
            return None

        code, written = hive.terminal("trace", name, "--as", shape, "--follow", say=go_on)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=WITHIN)
    assert code == 0
    left = screen(written)
    assert left.count(name) == 1, left
    assert "✓ completed" in left
    assert hive("trace", name, "--as", shape, "--follow").out.splitlines()[1].startswith("✓ completed")
    (trace,) = hive("trace", name, "--follow", "--json").json
    assert trace["run"]["status"] == "completed"


def test_a_question_answered_elsewhere_is_taken_back(hive: Console) -> None:
    """While the terminal asks, another process may answer: the run goes on without this one's word."""
    answered: list[int] = []

    def elsewhere(written: str) -> str | None:
        if "[y/N]" in written and not answered:
            answered.append(hive("approve", "@", "--json").code)
        return None

    code, written = hive.terminal("run", "asks.yaml", say=elsewhere)
    assert (code, answered) == (0, [0]), written
    assert "answered elsewhere" in written


def test_ctrl_c_at_a_question(hive: Console) -> None:
    """Ctrl-C at a question stops the process and says how to go on; the question stays open."""
    pressed = iter(["\x03"])
    code, written = hive.terminal(
        "run", "asks.yaml", say=lambda so_far: next(pressed, None) if "[y/N]" in so_far else None
    )
    assert code == 130, written
    assert "try: hive up" in screen(written)
    assert [run["status"] for run in hive("runs", "--json").json] == ["waiting"]
    (answer,) = hive("deny", "@", "--json").json
    assert (answer["task_id"], answer["answer"]) == ("ship", "denied")


def test_colours_are_for_terminals_that_want_them(hive: Console) -> None:
    """A terminal gets colours, unless NO_COLOR says otherwise; a pipe gets none."""
    assert hive("run", "asks.yaml", "--approve", "all").code == 0
    _, plain = hive.terminal("runs")
    coloured = hive("runs", env={"NO_COLOR": ""})
    assert "\x1b[32m" not in plain
    assert "\x1b" not in coloured.out


def test_a_traceback_only_when_asked_for(hive: Console) -> None:
    """An error is one line and a line to try; --debug shows where it came from."""
    assert hive("run", "asks.yaml", "--approve", "all").code == 0
    short = hive("trace", "nobody")
    assert [line.partition(":")[0] for line in short.err.splitlines()] == ["error", "try"]
    long = hive("trace", "nobody", "--debug")
    assert "Traceback" in long.err
    assert long.err.splitlines()[-2:] == short.err.splitlines()


def test_the_log_of_the_hive_itself(hive: Console) -> None:
    """With --verbose its own lines go to standard error; a wrong level is a usage error that names its origin."""
    assert hive("run", "asks.yaml", "--approve", "all", "--verbose").code == 0
    wrong = hive("runs", "--verbose", env={"HIVE_LOG_LEVEL": "LOUD"})
    assert wrong.code == 2
    assert "the environment" in wrong.err


def test_causes_are_drawn_for_what_is_no_run(hive: Console) -> None:
    """A correlation without a queen is drawn by what caused what."""
    (hive.directory / "tell.py").write_text(
        "import asyncio\n"
        "from hive_bus import Event, open_bus\n\n\n"
        "class Told(Event, topic='story.told'):\n    part: int\n\n\n"
        "async def main():\n"
        "    async with open_bus() as bus:\n"
        "        await bus.publish(Told(part=1), correlation_id='story-1')\n"
        "        first, = await bus.history('story-1')\n"
        "        await bus.publish(Told(part=2), caused_by=first)\n"
        "        await bus.publish(Told(part=3), caused_by=first)\n\n\n"
        "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    assert hive("publish", "story.begun", "{}", "--raw").code == 0
    import subprocess
    import sys

    subprocess.run([sys.executable, "tell.py"], cwd=hive.directory, env=hive.environment, check=True)
    drawn = hive("trace", "story-1").out.splitlines()
    assert [line.split()[0] for line in drawn] == ["correlation", "story.told", "├─", "└─"]
    assert "story.told" in hive("trace", "story-1", "--as", "log").out
