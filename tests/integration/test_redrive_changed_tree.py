"""Redrive by a changed tree: a copy of the source in which one word, one rule or one field is another, run as the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dashboard.cli.exits import FAILED
from tests.architecture.tree import PACKAGES, ROOT
from tests.golden.record import HISTORIES
from tests.support.patience import WITHIN
from tests.support.unmeasured import unmeasured

DEMO = HISTORIES / "demo-0.1.0.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is written in ``file`` instead of ``was``, and the first event of the demo's history that it matters to."""

    file: str
    was: str
    now: str
    position: int
    topic: str
    brain: str = "queen"


CHANGES = {
    "a word of a prompt": Change(
        file="agents/prompts.py",
        was="and use no tool",
        now="and use no hammer",
        position=7,
        topic="workflow.plan_generated",
    ),
    "a rule of a brain": Change(
        file="agents/queen_tasks.py",
        was="REVIEW_ROUNDS: Final = 3",
        now="REVIEW_ROUNDS: Final = 1",
        position=94,
        topic="task.review_completed",
    ),
    "a field of an event": Change(
        file="hive_bus/events/workflow.py",
        was='"""The queen took the run on."""\n',
        now='"""The queen took the run on."""\n\n    shift: str = "day"',
        position=1,
        topic="workflow.requested",
    ),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, compiled."""
    copy = tmp_path_factory.mktemp("tree")
    # Python writes what it compiled under a name of the moment first: other processes may be doing that now.
    ignored = shutil.ignore_patterns("web", "static", "*.pyc.*")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    return copy


def _redriven(tree: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and every difference that the tree's own `hive redrive` finds in the demo's history."""
    # What is measured is this tree, not its copy.
    env = unmeasured()
    done = subprocess.run(
        [sys.executable, "-c", "from dashboard.cli import main; main()", "redrive", str(DEMO), "--json", *words],
        cwd=tree,
        env=env,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (done.returncode in {0, FAILED}, done.stderr) == (True, "")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_an_unchanged_tree_says_nothing(tree: Path) -> None:
    """Not one difference, and exit code 0."""
    assert _redriven(tree, "--all-differences") == (0, [])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_tree_names_the_first_difference(change: Change, tree: Path, tmp_path: Path) -> None:
    """That one and no other: its position in the history, the event and the brain; what stood there before, and stands now."""
    changed = shutil.copytree(tree, tmp_path / "tree")
    text = (changed / change.file).read_text()
    assert text.count(change.was) == 1
    (changed / change.file).write_text(text.replace(change.was, change.now))
    code, (found,) = _redriven(changed)
    assert code == FAILED
    named = found["position"], found["topic"], found["brain"].partition("@")[0]
    assert named == (change.position, change.topic, change.brain)
    assert found["recorded"] != found["today"]
    _, every = _redriven(changed, "--all-differences")
    assert (every[0], min(one["position"] for one in every)) == (found, change.position)
