"""The demo from end to end: real tools on a real repository, and what can be asked of it afterwards."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.console import HIVE, Console
from tests.support.patience import WITHIN

RUN_TESTS = ["./check", "-q"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Console, Path, str]:
    """A directory in which the demo ran: its console, the repository, and what was printed."""
    console = Console(tmp_path_factory.mktemp("demo"))
    done = console("demo")
    assert done.code == 0, done.err
    (repository,) = (path for path in (console.directory / ".hive").glob("demo-*") if path.is_dir())
    return console, repository, done.err + done.out


def _git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True, check=True).stdout


def test_the_repository_is_really_mended(demo: tuple[Console, Path, str]) -> None:
    """The tests that failed pass on the branch that was handed over, and a new test came with the rework."""
    _, repository, _ = demo
    ended = subprocess.run(RUN_TESTS, cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert _git(repository, "status", "--porcelain") == ""
    assert "test_full_jars_are_counted_once" in (repository / "test_jars.py").read_text()


def test_the_reviewer_really_refused_once(demo: tuple[Console, Path, str]) -> None:
    """One result was sent back and reworked, on the words of the reviewer; both drones worked side by side."""
    console, _, _ = demo
    verdicts = [
        (one["data"]["task_id"], one["data"]["verdict"])
        for one in console("events", "task.review_completed", "--from", "0", "--json").json
    ]
    assert sorted(verdicts) == [("fix", "approved"), ("fix", "changes_requested"), ("readme", "approved")]
    (trace,) = console("trace", "@", "--json").json
    spans = {child["task_id"]: child for child in trace["root"]["children"] if child["kind"] == "task"}
    assert spans["fix"]["begin"] < spans["readme"]["end"]
    assert spans["readme"]["begin"] < spans["fix"]["end"]
    assert "check: Run all tests on the merged result" in trace["critical_path"]


def test_what_it_shows(demo: tuple[Console, Path, str]) -> None:
    """Progress, the tree with cost, the diff, and commands that work when they are pasted."""
    console, _, shown = demo
    assert "reviewer: changes requested" in shown
    assert "14 model calls" in shown
    assert "+    return -(-grams // JAR)" in shown
    commands = [line.strip() for line in shown.partition("\nnext\n")[2].splitlines() if line.startswith("  ")]
    assert len(commands) == 5
    environment = console.environment | {"PATH": f"{Path(HIVE).parent}:{console.environment['PATH']}"}
    for line in commands:
        ended = subprocess.run(
            line, shell=True, cwd=console.directory, env=environment, capture_output=True, check=False
        )
        assert ended.returncode == 0, (line, ended.stderr)


def test_it_is_redriven_and_audited_silently(demo: tuple[Console, Path, str]) -> None:
    """Today's brains decide everything as recorded, and every invariant of the database holds."""
    console, _, _ = demo
    assert (console("redrive", "@").out, console("redrive", "--all").out) == ("", "")
    assert console("audit", "--json").out == ""


def test_broken_differently_it_fails(tmp_path: Path) -> None:
    """With a mistake that the script does not mend, the same answers end in a failed run: the real tests decide."""
    done = Console(tmp_path)("demo", "--break", "--json")
    assert done.code == 1, done.err
    (run,) = done.json
    assert run["status"] == "failed"
    assert [task["status"] for task in run["tasks"]] == ["completed", "completed", "failed"]
    assert run["reason"].startswith("check: ")


def test_a_killed_demo_is_completed_by_an_up(tmp_path: Path) -> None:
    """`kill -9` in the middle loses nothing: another process goes on, and the audit finds nothing."""
    console = Console(tmp_path)
    process = console.start("demo")
    assert process.stderr is not None
    for line in iter(process.stderr.readline, ""):
        if "edit jars.py" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WITHIN)
    server = console.start("up")
    try:
        followed = console.start("trace", "@", "--as", "log", "--follow")
        out, _ = followed.communicate(timeout=2 * WITHIN)
        assert "workflow.completed" in out.splitlines()[-1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=WITHIN)
    assert console("audit", "--json").out == ""
    assert console("redrive", "@").out == ""


def test_a_directory_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    """The demo makes its repository only where nothing is."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("precious")
    done = Console(tmp_path)("demo", "--dir", "mine")
    assert done.code == 2
    assert "not empty" in done.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]
