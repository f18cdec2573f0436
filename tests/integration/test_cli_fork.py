"""hive fork: a branch from the command line, what it shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents import Otherwise
from dashboard.cli.forking import otherwise_of
from hive_errors import HiveError
from tests.support.console import Console

WORKFLOW = """
name: shout
steps:
  - id: first
    run: echo one
  - id: second
    needs: [first]
    run: echo two
    approval: May the second start?
"""


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """A directory in which a run has completed."""
    console = Console(tmp_path)
    (tmp_path / "shout.yaml").write_text(WORKFLOW)
    assert console("run", "shout.yaml", "--approve", "all", "--id", "shout-1").code == 0
    return console


def test_a_branch_is_made_shown_and_told(console: Console) -> None:
    """It runs to its end here; list, trace, events and redrive know it by its own name."""
    done = console("fork", "shout-1", "--at", "@6", "--id", "branch-1", "--json")
    assert done.code == 0, done.err
    (view,) = done.json
    assert (view["id"], view["status"], view["parent"], view["output"]) == ("branch-1", "completed", "shout-1", "two")
    assert [one["id"] for one in console("runs", "--json").json] == ["branch-1", "shout-1"]
    (trace,) = console("trace", "branch-1", "--json").json
    assert trace["run"]["id"] == "branch-1"
    shared = [one["event_id"] for one in console("events", "--correlation", "shout-1", "--json").json]
    own = [one["event_id"] for one in console("events", "--correlation", "branch-1", "--json").json]
    assert own[: view["events"]] == own
    assert own[:6] == shared[:6]
    assert console("redrive", "--all").out == ""
    assert console("audit", "--json").out == ""


def test_a_branch_can_be_left_to_others(console: Console) -> None:
    """--detach only makes it; its approvals wait for people when it is told so."""
    assert console("fork", "shout-1", "--at", "@6", "--id", "branch-1", "--approve", "ask", "--detach").code == 0
    (view,) = [one for one in console("runs", "--json").json if one["id"] == "branch-1"]
    assert view["status"] != "completed"


def test_an_edit_is_read_from_a_file(console: Console, tmp_path: Path) -> None:
    """The event's body as the branch has it; the run keeps its own."""
    (event,) = [
        one for one in console("events", "--correlation", "shout-1", "--json").json
        if one["topic"] == "task.returned" and one["data"]["task_id"] == "second"
    ]  # fmt: skip
    (tmp_path / "body.json").write_text(json.dumps(event["data"] | {"output": "three"}))
    at = str(event["position"])
    done = console("fork", "shout-1", "--at", at, "--edit", f"{at}=body.json", "--json")
    assert done.code == 0, done.err
    (view,) = done.json
    assert view["output"] == "three"
    assert [one["output"] for one in console("runs", "--json").json] == ["three", "two"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": ["colour=red"]}, "nothing to set"),
        ({"settings": ["model"]}, "no pair"),
        ({"settings": ["model.queen=x"]}, "nothing to set"),
        ({"settings": ["max_parallel=0"]}, "nothing to set"),
        ({"settings": ["review=maybe"]}, "nothing to set"),
        ({"allow": ["everything"]}, "none of its words"),
        ({"approve": "maybe"}, "none of its words"),
        ({"prompt_files": ["queen=nowhere"]}, "none of its words"),
        ({"prompt_files": ["drone=nowhere"]}, "cannot be read"),
        ({"script": Path("nowhere")}, "no such file"),
        ({"edits": ["1=nowhere"]}, "cannot be read"),
        ({"edits": [f"1={__file__}"]}, "no JSON"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    """Before anything is made, with what was said and what to say instead."""
    with pytest.raises(HiveError, match=said):
        otherwise_of(**{"settings": [], **options})


def test_what_is_set_is_what_the_branch_does(tmp_path: Path) -> None:
    """By role where one is named; a script is short for the model that answers from it."""
    (tmp_path / "prompt").write_text("Be strict.")
    found = otherwise_of(
        ["model.reviewer=claude-opus-5-5", "max_parallel=2", "review=false"],
        script=Path(__file__),
        prompt_files=[f"reviewer={tmp_path / 'prompt'}"],
        allow=["unsafe"],
        approve="none",
    )
    assert found == Otherwise(
        models={"reviewer": "claude-opus-5-5", "": f"scripted:{__file__}"},
        prompts={"reviewer": "Be strict."},
        max_parallel=2,
        review=False,
        approve="none",
        unsafe=True,
    )
