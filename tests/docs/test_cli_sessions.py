"""The sessions in docs/cli.md are run as written, on a pipe and on a terminal, and say what the page says."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.docs.sessions import alike, files_of, fits, steps_of
from tests.support.console import HIVE, Console, on_terminal, screen
from tests.support.patience import WITHIN
from tests.support.unmeasured import unmeasured

PAGE = ROOT / "docs" / "cli.md"
COLUMNS = 100


def _project(directory: Path) -> Console:
    """A directory as the page's reader has it: the examples, and the files that the page shows."""
    shutil.copytree(ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files_of(PAGE).items():
        (directory / name).write_text(text)
    return Console(directory)


def _environment(console: Console) -> dict[str, str]:
    path = f"{Path(HIVE).parent}:{console.environment['PATH']}"
    # A hundred commands, each measured where it is tested: measuring them here as well takes as long as running them.
    plain = unmeasured(console.environment)
    return plain | {"PATH": path, "COLUMNS": str(COLUMNS)}


@pytest.mark.timeout(900)
def test_sessions_on_a_pipe(tmp_path: Path) -> None:
    """Each command writes what the page shows and ends with the code it says, for programs that read a pipe."""
    console = _project(tmp_path)
    for step in steps_of(PAGE):
        done = subprocess.run(
            ["sh", "-c", step.command],
            cwd=tmp_path,
            env=_environment(console),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        _compare(f"cli.md:{step.line}: {step.command}", step.expected, done.stdout)
        assert done.returncode == step.code, step


@pytest.mark.timeout(900)
def test_sessions_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a reader ends up with the same text: what was drawn while it ran is gone."""
    console = _project(tmp_path)
    for step in steps_of(PAGE):
        # Nobody sits there: a question would wait for ever.
        command = ["sh", "-c", f"{step.command} </dev/null"]
        code, written = on_terminal(command, tmp_path, _environment(console), columns=COLUMNS)
        _compare(f"cli.md:{step.line}: {step.command}", step.expected, screen(written))
        assert code == step.code, step


def _compare(place: str, expected: str, written: str) -> None:
    if not fits(expected, written):
        difference = "\n".join(difflib.unified_diff(alike(expected), alike(written), "the page", "what was written"))
        pytest.fail(f"{place}\n{difference}\n\nas it was written:\n{written}", pytrace=False)
