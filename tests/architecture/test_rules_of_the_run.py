"""The rules that tests/conftest.py and the Makefile add to a run, each seen to work."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.architecture.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SKIPPED = """
import pytest

def test_runs(): pass

@pytest.mark.skip(reason="planted")
def test_is_skipped(): pass
"""


def _run_pytest(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            ROOT / "pyproject.toml",
            "--rootdir",
            directory,
            "-p",
            "tests.conftest",
            *words,
            directory,
        ],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [(), ("--numprocesses=2",)], ids=["one process", "two"])
@pytest.mark.parametrize(("environment", "status"), [({}, 0), ({"CI": "true"}, 1)], ids=["at home", "in CI"])
def test_a_skipped_test_fails_only_where_nothing_may_be_skipped(
    tmp_path: Path, environment: dict[str, str], status: int, words: tuple[str, ...]
) -> None:
    """A skip is counted at home, and fails the run where `CI` is set, however many processes share the tests."""
    (tmp_path / "test_planted.py").write_text(SKIPPED)
    run = _run_pytest(tmp_path, *words, **environment)
    assert run.returncode == status, run.stdout + run.stderr
    assert "skipped: 1" in run.stdout
    assert "1 passed, 1 skipped" in run.stdout


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    """A warning that nobody asked for fails the test that caused it."""
    (tmp_path / "test_planted.py").write_text("import warnings\n\ndef test_warns(): warnings.warn('planted')\n")
    assert "1 failed" in _run_pytest(tmp_path).stdout


def test_no_key_and_no_database_of_the_developer_is_seen(tmp_path: Path) -> None:
    """Keys of model providers and settings of the hive are gone before the first test runs."""
    (tmp_path / "test_planted.py").write_text(
        "import os\n\ndef test_clean(): assert not [n for n in os.environ if n.startswith(('HIVE_', 'ANTHROPIC_'))]\n"
    )
    run = _run_pytest(tmp_path, HIVE_DB="sqlite:////real.db", ANTHROPIC_API_KEY="real")
    assert "1 passed" in run.stdout


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_has_a_line_for_every_command() -> None:
    """`make` alone lists what a developer can do."""
    listed = {line.split()[1] for line in _make().stdout.splitlines()}
    assert {"setup", "demo", "check", "test", "bench", "soak", "help"} <= listed


def test_an_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Set-up with a Python that is too old says so, and how to choose another."""
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    run = _make(f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "setup")
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stderr
    assert "make PYTHON=" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    """Set-up without any Python says which one it looked for."""
    run = _make("PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}", "setup")
    assert run.returncode != 0
    assert "no-such-python" in run.stderr
