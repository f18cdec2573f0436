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


def test_a_question_that_nobody_had_answered_stops_it(tmp_path: Path) -> None:
    """Also live, where the advice to go live would lead nowhere."""
    console = Console(tmp_path)
    (tmp_path / "shout.yaml").write_text(WORKFLOW)
    assert console("run", "shout.yaml", "--id", "shout-1").code == 3
    said = console("what-if", "shout-1", "--live").err
    assert "stopped where first waits for an approval that nobody had given" in said
    assert "goes on" in console("what-if", "shout-1").err


def test_what_does_not_exist_is_looked_for_where_it_could_be(tmp_path: Path) -> None:
    """An event or a file is no run: the advice is about events."""
    console = Console(tmp_path)
    (tmp_path / "shout.yaml").write_text(WORKFLOW)
    assert console("run", "shout.yaml", "--approve", "all", "--id", "shout-1").code == 0
    for what in ("99999", "nothing.txt"):
        missing = console("why", what)
        assert (missing.code, "hive events --correlation RUN" in missing.err) == (4, True)
