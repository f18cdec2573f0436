"""trace, runs, events, publish, agents, parked, audit, redrive, db, doctor: what can be asked of a hive."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Console, screen
from tests.support.patience import WITHIN
from tests.support.postgres import Servers
from tests.support.tables import copy, tamper

HELLO = """\
name: hello
steps:
  - {id: who, run: echo you}
  - {id: greet, run: 'echo Hello, {{ steps.who.output }}', needs: [who]}
"""


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory, database: str, postgres_servers: Servers) -> Iterator[Console]:
    """A hive in which one run completed and one failed."""
    directory = tmp_path_factory.mktemp("hive")
    (directory / "hello.yaml").write_text(HELLO)
    (directory / "bad.yaml").write_text("name: bad\nsteps: [{id: no, run: exit 3}]\n")
    console = Console(directory, "" if database == "sqlite" else postgres_servers.new_database())
    assert console("run", "hello.yaml", "--id", "hello-1").code == 0
    assert console("run", "bad.yaml", "--id", "bad-1").code == 1
    yield console
    postgres_servers.drop(console.database)


def test_runs_are_listed_newest_first(hive: Console) -> None:
    """`runs` gives every run's state, filtered and limited when asked."""
    assert [run["id"] for run in hive("runs", "--json").json] == ["bad-1", "hello-1"]
    assert [run["id"] for run in hive("runs", "--status", "completed", "--json").json] == ["hello-1"]
    assert [run["id"] for run in hive("runs", "-n", "1", "--json").json] == ["bad-1"]
    assert "✗ failed" in hive("runs").out
    assert hive("runs", "--status", "asleep").code == 2


def test_a_run_is_named_by_a_prefix_or_as_the_last_one(hive: Console) -> None:
    """Four letters are enough, fewer are not; @ is the last run."""
    assert hive("trace", "hell").out == hive("trace", "hello-1").out
    assert hive("trace", "@").out.startswith("run bad-1")
    refused = hive("trace", "hel")
    assert refused.code == 4
    assert "4 characters" in refused.err


def test_a_trace_as_json_has_waits_work_and_the_critical_path(hive: Console) -> None:
    """Programs get the whole tree."""
    (trace,) = hive("trace", "hello-1", "--json").json
    assert trace["critical_path"] == ["plan", "who", "greet"]
    assert trace["root"]["worked"] > 0
    assert trace["root"]["duration"] if "duration" in trace["root"] else trace["run"]["seconds"] > 0


def test_a_log_and_events_show_the_same(hive: Console) -> None:
    """`trace --as log` is the run's part of `events`, and both are JSON Lines when asked."""
    log = hive("trace", "hello-1", "--as", "log", "--json")
    events = hive("events", "--correlation", "hello-1", "--json")
    assert log.out == events.out
    assert [one["position"] for one in log.json] == sorted(one["position"] for one in log.json)
    topics = {one["topic"] for one in hive("events", "task.*", "--from", "0", "--json").json}
    assert topics >= {"task.created", "task.ready", "task.assigned", "task.returned", "task.failed"}
    assert all(topic.startswith("task.") for topic in topics)
    assert hive("events", "Task..", "--json").code == 2


def test_lines_fit_the_terminal(hive: Console) -> None:
    """At 80 and at 120 columns no line of a table, a tree or a timeline is wider than the screen."""
    for columns in (80, 120):
        for words in (("runs",), ("trace", "hello-1"), ("trace", "hello-1", "--as", "timeline"), ("agents",)):
            code, written = hive.terminal(*words, columns=columns)
            assert code == 0
            assert max(len(line) for line in screen(written).splitlines()) <= columns, (words, written)


def test_events_can_be_followed(hive: Console) -> None:
    """`events --follow` prints what another process publishes, as it happens."""
    follower = hive.start("events", "order.*", "--from", "0", "--follow", "--json")
    try:
        assert hive("publish", "order.placed", '{"order": 7}', "--raw", "--correlation", "order-7").code == 0
        assert follower.stdout is not None
        event = json.loads(follower.stdout.readline())
        assert (event["topic"], event["data"], event["correlation_id"]) == ("order.placed", {"order": 7}, "order-7")
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=WITHIN)
    assert follower.returncode == 130


def test_a_correlation_that_is_no_run_is_a_tree_of_causes(hive: Console) -> None:
    """Whatever was published can be traced, also where no queen had a part in it."""
    assert hive("publish", "parcel.sent", '{"to": "x"}', "--raw", "--correlation", "parcel-1").code == 0
    assert "parcel.sent" in hive("trace", "parcel-1").out
    (tree,) = hive("trace", "parcel-1", "--json").json
    assert tree["correlation_id"] == "parcel-1"


@pytest.mark.sqlite_only("about words, not about a database")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("publish", "task.asigned", "{}"), 2, "did you mean 'task.assigned'?"),
        (("publish", "nodots", "{}"), 2, "topic 'nodots' is refused"),
        (("publish", "order.placed", "{]", "--raw"), 2, "JSON = {]"),
        (("publish", "order.placed", "[1]", "--raw"), 2, "it must be an object"),
        (("publish", "task.created", "{}", "--correlation", "x-1"), 2, "task_id"),
        (("publish", "order.placed", '{"n": 1e999}', "--raw"), 2, "order.placed"),
        (("publish", "task.completed", '{"task_id": "who"}', "--correlation", "hello-1"), 1, "cannot be published"),
        (("publish", "order.placed", "{}", "--module", "no_such_module"), 2, "no_such_module"),
    ],
)
def test_what_cannot_be_published_says_why(hive: Console, words: tuple[str, ...], code: int, said: str) -> None:
    """Unknown topics, payloads that are no JSON, missing fields, and a run's own events: each has its reason."""
    before = hive("events", "--json", "--from", "0").out
    done = hive(*words)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert hive("events", "--json", "--from", "0").out == before


def test_a_module_brings_its_own_topics(hive: Console) -> None:
    """With --module a topic of the user's is checked against its class."""
    (hive.directory / "shop_events.py").write_text(
        "from hive_bus import Event\n\n\nclass Packed(Event, topic='box.packed'):\n    weight: int\n"
    )
    assert hive("publish", "box.packed", '{"weight": 3}', "--module", "shop_events").code == 0
    refused = hive("publish", "box.packed", '{"weight": "much"}', "--module", "shop_events")
    assert refused.code == 2
    assert "weight" in refused.err


def test_the_log_is_audited_and_redriven(hive: Console) -> None:
    """Nothing is found in a sound hive; a planted hole is named, with exit code 1."""
    assert hive("audit", "--json").out == ""
    assert hive("redrive", "--all").out == ""
    assert hive("redrive").code == 2
    broken = copy(hive.url)
    tamper(broken, "DELETE FROM events WHERE position = 5")
    found = hive("audit", "--db", broken)
    assert found.code == 1
    assert "position" in found.out


def test_the_database_is_looked_after(hive: Console) -> None:
    """`db` upgrades, checks and counts; `agents` shows who was there."""
    assert "nothing to do" in hive("db", "upgrade").out
    assert "sound" in hive("db", "check").out
    (stats,) = hive("db", "stats", "--json").json
    assert stats["rows"]["events"] == stats["head"]
    agents = {(one["kind"], one["presence"]) for one in hive("agents", "--json").json}
    assert agents == {("brain", "offline")}, "no process serves now"


def test_nothing_is_parked(hive: Console) -> None:
    """`parked` shows that nothing is set aside, and says what it needs to retry or discard."""
    assert hive("parked", "--json").out == ""
    missing = hive("parked", "discard")
    assert missing.code == 2
    assert hive("parked", "retry", "brain/queen", "nobody").code == 4


def test_doctor_finds_nothing_wrong(hive: Console) -> None:
    """Each part of the machine is looked at; the only thing amiss is what the tests' server gives up for speed."""
    checks = hive("doctor", "--json").json
    looked_at = {check["name"] for check in checks}
    assert looked_at >= {"hive", "packages", "imports", "git", "SQLite", "database"}
    assert ("disk" in looked_at) is (not hive.database), "a server's disk is its own affair"
    assert {check["name"] for check in checks if check["level"] == "problem"} <= {"durability"}


@pytest.mark.sqlite_only("about words, not about a database")
def test_a_foreign_package_in_the_way_is_found(hive: Console, tmp_path: Path) -> None:
    """Another project's `agents` that would be imported instead of ours is a problem with its place."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    done = hive("doctor", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 1
    assert str(tmp_path / "agents") in done.out


@pytest.mark.sqlite_only("about words, not about a database")
def test_validate_names_every_problem(hive: Console) -> None:
    """Files that are right have a line, wrong ones one for each problem, and the exit code is 2."""
    (hive.directory / "wrong.yaml").write_text(
        "name: wrong\nsteps:\n  - {id: a, rum: x}\n  - {id: b, run: x, needs: [c]}\n"
    )
    done = hive("validate", "hello.yaml", "wrong.yaml")
    assert done.code == 2
    assert done.out.splitlines()[0] == "✓ hello.yaml: 2 steps"
    assert len(done.out.splitlines()) == 3
    problems = [one for one in hive("validate", "hello.yaml", "wrong.yaml", "--json").json if not one["valid"]]
    assert [one["line"] for one in problems] == [3, 4]


def test_a_reader_that_leaves_early_is_no_error(hive: Console) -> None:
    """`hive events | head -1` ends quietly."""
    follower = hive.start("events", "--from", "0", "--follow")
    assert follower.stdout is not None
    assert follower.stdout.readline()
    follower.stdout.close()
    hive("publish", "order.placed", "{}", "--raw")
    assert follower.stderr is not None
    assert follower.wait(timeout=WITHIN) == 0, follower.stderr.read()
    assert follower.stderr.read() == ""
    follower.stderr.close()
