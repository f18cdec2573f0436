"""hive run, up, approve, deny, cancel, retry: the real script in real processes, on one real file."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.console import Console, screen
from tests.support.patience import WITHIN

SHIP = """\
name: ship
steps:
  - {id: build, run: echo built}
  - {id: ship, needs: [build], run: echo shipped, approval: Ship it now?, effect: unsafe}
"""
FLAKY = """\
name: flaky
steps:
  - {id: fetch, run: test -e there}
  - {id: use, needs: [fetch], run: echo used}
"""
SLOW = """\
name: slow
steps:
  - {id: send, run: "touch begun && until [ -e over ]; do sleep 0.02; done; sleep 2; echo sent", effect: unsafe}
"""
QUICK = """\
name: quick
steps:
  - {id: wait, run: "until [ -e begun ]; do sleep 0.02; done; touch over"}
"""


@pytest.fixture
def hive(tmp_path: Path, console_database: str) -> Console:
    """A directory without a hive, with two workflows."""
    (tmp_path / "ship.yaml").write_text(SHIP)
    (tmp_path / "flaky.yaml").write_text(FLAKY)
    return Console(tmp_path, console_database)


def test_a_run_is_data_on_standard_output_and_progress_beside_it(hive: Console) -> None:
    """With --json standard output is one JSON object, and nothing else; progress goes to standard error."""
    done = hive("run", "ship.yaml", "--approve", "all", "--json", "--meta", "build=17", "--meta", "by=me")
    assert done.code == 0, done.err
    (run,) = done.json
    assert (run["status"], run["output"], run["metadata"]) == ("completed", "shipped", {"build": 17, "by": "me"})
    assert [task["status"] for task in run["tasks"]] == ["completed", "completed"]
    assert "starts" in done.err


def test_what_was_begun_for_another_run_is_finished(hive: Console) -> None:
    """A process that ends with its own run cuts nothing off: half of something unsafe would be a question to a person."""
    (hive.directory / "slow.yaml").write_text(SLOW)
    (hive.directory / "quick.yaml").write_text(QUICK)
    assert hive("run", "slow.yaml", "--id", "slow-1", "--detach").code == 0
    done = hive("run", "quick.yaml", "--id", "quick-1")
    assert done.code == 0, done
    topics = [event["topic"] for event in hive("events", "--correlation", "slow-1", "--json").json]
    assert "task.returned" in topics
    assert "approval.requested" not in topics


def test_a_failed_run_ends_with_one(hive: Console) -> None:
    """A failed step fails what needs it and the run; the exit code says so."""
    done = hive("run", "flaky.yaml")
    assert done.code == 1
    assert "skipped" in done.out
    assert "exit code 1" in done.out


def test_a_retried_run_goes_on_where_a_hive_serves(hive: Console) -> None:
    """`retry` asks for another try of what failed; `up` does it, and the run completes."""
    assert hive("run", "flaky.yaml", "--id", "flaky-1").code == 1
    (hive.directory / "there").touch()
    assert hive("retry", "flaky-1").code == 0
    _serve_until_ended(hive, "flaky-1", "completed")


def test_nobody_to_ask_ends_with_three(hive: Console) -> None:
    """Without a terminal a question ends the command, when nothing else can go on, with what to type."""
    done = hive("run", "ship.yaml", "--id", "ship-1")
    assert done.code == 3
    assert "try: hive approve ship-1 ship" in done.err
    assert hive("approve", "ship-1", "--by", "ana", "--comment", "go").code == 0
    _serve_until_ended(hive, "ship-1", "completed")
    granted = hive("events", "approval.granted", "--correlation", "ship-1", "--json").json
    assert [(one["data"]["by"], one["data"]["comment"]) for one in granted] == [("ana", "go")]


def test_a_denied_step_fails_its_run(hive: Console) -> None:
    """`deny` is an answer too: the step fails and the run with it."""
    assert hive("run", "ship.yaml", "--id", "ship-1").code == 3
    assert hive("deny", "ship-1", "ship").code == 0
    _serve_until_ended(hive, "ship-1", "failed")


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1)])
def test_a_terminal_is_asked(hive: Console, answer: str, code: int) -> None:
    """On a terminal the question is asked there; only a yes is a yes."""
    asked = iter([f"{answer}\n"])
    ended, written = hive.terminal(
        "run", "ship.yaml", say=lambda so_far: next(asked, None) if "[y/N]" in so_far else None
    )
    assert ended == code, written
    shown = screen(written)
    assert ("✓ ship   completed" in shown) is (code == 0), shown


def test_ctrl_c_stops_the_process_and_not_the_run(hive: Console) -> None:
    """An interrupted `run` says how to go on, ends with 130, and an `up` completes the run."""
    (hive.directory / "slow.yaml").write_text("name: slow\nsteps: [{id: wait, run: 'test -e there || sleep 30'}]\n")
    process = hive.start("run", "slow.yaml", "--id", "slow-1")
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("starts" in line for line in lines)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WITHIN)
    assert process.returncode == 130
    assert "try: hive up" in said
    (hive.directory / "there").touch()
    _serve_until_ended(hive, "slow-1", "completed")


def test_starting_twice_is_an_error_or_the_same_run(hive: Console) -> None:
    """An id names one run: a second start fails, or with --if-exists return gives the first one's end."""
    first = hive("run", "ship.yaml", "--id", "nightly", "--approve", "all")
    assert first.code == 0
    again = hive("run", "ship.yaml", "--id", "nightly")
    assert again.code == 1
    assert "nightly exists already" in again.err
    returned = hive("run", "ship.yaml", "--id", "nightly", "--if-exists", "return", "--json")
    assert returned.code == 0
    assert [run["status"] for run in returned.json] == ["completed"]
    assert len(hive("runs", "--json").json) == 1


def test_a_detached_run_can_be_cancelled_before_anybody_took_it(hive: Console) -> None:
    """`--detach` prints the id and leaves the run to an `up`, which then finds it cancelled."""
    started = hive("run", "ship.yaml", "--detach")
    assert started.code == 0
    name = started.out.strip()
    assert hive("cancel", name[:5], "--reason", "not today").code == 0
    _serve_until_ended(hive, name, "cancelled")
    late = hive("cancel", name)
    assert late.code == 1
    assert "cancelled" in late.err


@pytest.mark.sqlite_only("about words, not about a database")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "missing.yaml"), 2, "cannot be read"),
        (("run", "wrong.yaml"), 2, "wrong.yaml:2:"),
        (("run", "a goal in words"), 2, "no model is chosen"),
        (("run", "a goal", "--model", "gpt"), 2, "unknown"),
        (("run", "a goal", "--model", "claude-sonnet-5-5"), 2, "ANTHROPIC_API_KEY"),
        (("run", "a goal", "--script", "answers.yaml"), 2, "there is no such file"),
        (("run", "a goal", "--script", "wrong.yaml"), 2, "wrong.yaml:1:"),
        (("run", ""), 2, "it is empty"),
        (("run", "ship.yaml", "--id", "a b"), 2, "run id 'a b' is refused"),
        (("run", "ship.yaml", "--approve", "maybe"), 2, "one of: ask, all, none"),
        (("run", "ship.yaml", "--meta", "key"), 2, "write --meta key=value"),
        (("run", "ship.yaml", "--workspace", "nowhere"), 2, "nowhere"),
        (("run", "ship.yaml", "--db", "mysql://localhost/x"), 2, "mysql"),
        (("run",), 2, "Missing argument"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input_is_one_line_and_what_to_try(hive: Console, words: tuple[str, ...], code: int, said: str) -> None:
    """Each mistake has its exit code, its reason, and no traceback; nothing is started."""
    (hive.directory / "wrong.yaml").write_text("name: wrong\nstep: []\n")
    done = hive(*words)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert (hive("runs").out, hive("runs", "--json").out) == ("", "")


def _serve_until_ended(hive: Console, run: str, status: str) -> None:
    """Host a hive until the run has ended, and see that it did so as expected."""
    server = hive.start("up")
    try:
        followed = hive("trace", run, "--as", "log", "--follow", "--json")
        assert followed.code == 0, followed.err
        assert followed.json[-1]["topic"] == f"workflow.{status}"
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=WITHIN)
    assert server.returncode == 0, said


def test_a_place_without_a_hive_is_said(hive: Console) -> None:
    """A question makes no file: without one there is no hive; a server's database is there, and has no such run."""
    done = hive("trace", "nobody")
    assert done.code == 4
    assert ("no run 'nobody'" if hive.database else "no hive here") in done.err
    assert done.err.count("\n") == 2
