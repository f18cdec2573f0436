"""`hive label` and `--at`: the past by every name that a moment has."""

from __future__ import annotations

import pytest

from tests.support.console import Console

pytestmark = pytest.mark.sqlite_only("about words; what they mean is asked of every database in test_moments")

HELLO = """\
name: hello
steps:
  - {id: who, run: echo you}
  - {id: greet, run: 'echo Hello, {{ steps.who.output }}', needs: [who]}
"""


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> Console:
    """A hive in which one run completed, and then another."""
    directory = tmp_path_factory.mktemp("hive")
    (directory / "hello.yaml").write_text(HELLO)
    console = Console(directory)
    for run in ("hello-1", "hello-2"):
        assert console("run", "hello.yaml", "--id", run).code == 0
    return console


def test_a_label_is_set_moved_and_listed(hive: Console) -> None:
    """On the last event by default, at a moment when asked; the list says what it stands at, and who set it."""
    events = hive("events", "--correlation", "hello-1", "--json").json
    (made,) = hive("label", "hello-1", "done", "--json").json
    assert (made["run"], made["name"], made["position"]) == ("hello-1", "done", events[-1]["position"])
    assert hive("label", "hello-1", "planned", "--at", "done", "--by", "ada").code == 0
    assert hive("label", "hello-1", "planned", "--at", "@4", "--by", "ada").code == 0
    listed = hive("label", "hello-1", "--json").json
    assert [(one["name"], one["position"]) for one in listed] == [
        ("planned", events[3]["position"]),
        ("done", events[-1]["position"]),
    ]
    assert "workflow.plan_generated" in hive("label", "hello-1").out
    assert hive("label", "hello-2", "--json").out == ""
    refused = hive("label", "hello-1", "x", "--at", "plannd")
    assert refused.code == 2
    assert "did you mean planned?" in refused.err


def test_a_label_changes_nothing_of_a_run(hive: Console) -> None:
    """It is told in its log, and neither its state, its time nor what its end had to wait for is another."""
    before = hive("trace", "hello-2", "--json").json[0]
    assert hive("label", "hello-2", "later").code == 0
    after = hive("trace", "hello-2", "--json").json[0]
    assert after["critical_path"] == before["critical_path"] == ["plan", "who", "greet"]
    assert after["run"]["seconds"] == before["run"]["seconds"]
    assert after["run"]["status"] == "completed"
    assert "workflow.labelled" in hive("trace", "hello-2", "--as", "log").out
    assert hive("redrive", "--all").code == 0
    assert hive("audit").code == 0


def test_a_run_is_shown_as_it_was(hive: Console) -> None:
    """A trace and a state at an event of the run are what they were then; the moment that was meant is said."""
    records = hive("trace", "hello-1", "--as", "log", "--json").json
    position = next(one["position"] for one in records if one["topic"] == "task.assigned")
    shown = hive("trace", "hello-1", "--at", str(position), "--json")
    (trace,) = shown.json
    assert (trace["run"]["status"], trace["run"]["position"]) == ("running", position)
    assert [task["status"] for task in trace["run"]["tasks"]] == ["working", "pending"]
    assert f"as of position {position}, " in shown.err
    log = hive("trace", "hello-1", "--as", "log", "--at", "@5", "--json").json
    assert log == records[:5]
    assert hive("events", "--correlation", "hello-1", "--at", "@5", "--json").json == log
    (state,) = hive("state", "hello-1", "--brain", "queen", "--at", str(position), "--json").json
    assert {name: task["phase"] for name, task in state["state"]["tasks"].items()} == {
        "who": "ready",
        "greet": "pending",
    }
    assert "phase: ended" in hive("state", "hello-1", "--brain", "queen").out
    assert "phase: ended" not in hive("state", "hello-1", "--at", "@9").out
    assert hive("state", "@", "--brain", "king").code == 2
    assert hive("trace", "hello-1", "--follow", "--at", "@5").code == 2


def test_the_hive_is_shown_as_it_was(hive: Console) -> None:
    """Runs, agents, status and the last events as of a moment: what came later is not there yet."""
    second = hive("events", "workflow.requested", "--from", "0", "--json").json[1]["position"]
    assert [run["id"] for run in hive("runs", "--at", str(second - 1), "--json").json] == ["hello-1"]
    assert [(run["id"], run["status"]) for run in hive("runs", "--at", str(second), "--json").json] == [
        ("hello-2", "requested"),
        ("hello-1", "completed"),
    ]
    later = next(
        one["position"]
        for one in hive("trace", "hello-2", "--as", "log", "--json").json
        if one["topic"] == "task.assigned"
    )
    present = {one["name"]: one["presence"] for one in hive("agents", "--at", str(later), "--json").json}
    assert present == dict.fromkeys(("drone", "planner", "queen", "reviewer"), "online")
    assert {one["presence"] for one in hive("agents", "--json").json} == {"offline"}
    (status,) = hive("status", "--at", str(later), "--json").json
    assert (status["head"], status["runs_since"]["requested"], status["runs_since"]["completed"]) == (later, 2, 1)
    assert [process["agents"] for process in status["processes"]] == [["drone", "planner", "queen", "reviewer"]]
    assert [one["position"] for one in hive("events", "--at", "3", "--json").json] == [1, 2, 3]
    assert hive("agents", "--at", "@3").code == 2
