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
