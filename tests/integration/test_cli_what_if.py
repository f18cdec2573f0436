"""hive what-if from the command line: the comparison, and what is refused."""

from __future__ import annotations

from pathlib import Path

from tests.support.console import Console

WORKFLOW = "name: shout\nsteps:\n  - {id: first, run: echo one, approval: May it?}\n"


def test_an_unchanged_run_is_answered_whole_and_a_branch_is_refused(tmp_path: Path) -> None:
    """The command of the step is not run again, its question is answered as it was; a branch has no terms of its own to begin on."""
    console = Console(tmp_path)
    (tmp_path / "shout.yaml").write_text(WORKFLOW)
    assert console("run", "shout.yaml", "--approve", "all", "--id", "shout-1").code == 0
    done = console("what-if", "shout-1", "--json")
    assert done.code == 0, done.err
    (found,) = done.json
    assert found["what_if"] == {"answered": 1, "new": 0, "ended": True}
    assert console("fork", "shout-1", "--id", "branch-1").code == 0
    refused = console("what-if", "branch-1")
    assert (refused.code, "cannot be decided again" in refused.err) == (1, True)
