"""`hive --help` is quick and teaches; what is heavy is loaded by the command that needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dashboard.cli.app import ORDER
from tests.support.console import Console
from tests.support.unmeasured import unmeasured

HEAVY = (
    "rich",
    "pydantic",
    "sqlalchemy",
    "alembic",
    "structlog",
    "anthropic",
    "ruamel",
    "agents",
    "asyncio",
)


def test_help_lists_every_command_in_one_order(tmp_path: Path) -> None:
    """The page has all commands with a line each that is not cut off, the exit codes, and where the database is."""
    done = Console(tmp_path)("--help")
    assert done.code == 0
    listed = done.out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(ORDER)
    assert [line for line in listed if line.endswith("...")] == []
    assert "4 not found" in done.out
    assert "HIVE_DB" in done.out
    assert Console(tmp_path)().err.startswith("Usage: hive")


@pytest.mark.parametrize("name", ORDER)
def test_a_command_explains_itself(tmp_path: Path, name: str) -> None:
    """Its help says what it does, names the common options, and has an example that begins with its name."""
    done = Console(tmp_path)(name, "--help")
    assert done.code == 0
    assert "--json" in done.out
    assert "--db URL" in done.out
    examples = done.out.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.strip().startswith(f"hive {name}") for line in examples)
    assert not list(tmp_path.iterdir()), "help makes no files"


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """Neither rich nor the bus, a database or a model is loaded to print a page of help."""
    code = (
        "import sys; sys.argv = ['hive', '--help']\n"
        "from dashboard.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    # Without coverage, which would load a database to keep its data in.
    env = unmeasured()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "LOADED []"
