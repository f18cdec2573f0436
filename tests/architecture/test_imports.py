"""Imports point down, packages know only what they may, and each rule is proved by a planted violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("hive_errors", "hive_core_db", "hive_bus", "agents", "dashboard")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# For every contract: the file that breaks it, and the line that does.
PLANTED = {
    "floors": ("hive_core_db/planted.py", "import hive_bus"),
    "errors-stdlib": ("hive_errors/planted.py", "import orjson"),
    "bus-no-sql": ("hive_bus/planted.py", "def late():\n    import sqlalchemy.orm"),
    "bus-inside": ("hive_bus/groups/planted.py", "import hive_bus.hands.runner"),
    "core-no-bus-words": ("hive_core_db/planted.py", "import nats"),
    "agents-no-surface": ("agents/planted.py", "from rich.console import Console"),
    "dashboard-no-model": ("dashboard/planted.py", "import agents.models.planted"),
    "pure-brains": ("agents/queen/planted.py", "from time import time"),
}
EXTRA_FILES = {
    "dashboard-no-model": {"agents/models/planted.py": ""},
    "pure-brains": {"agents/queen/__init__.py": "import agents.queen.planted"},
}

# What `import hive_bus` must not load: each costs its user a noticeable part of a second or a dependency.
HEAVY = (
    "agents",
    "alembic",
    "anthropic",
    "dashboard",
    "fastapi",
    "mcp",
    "opentelemetry",
    "rich",
    "sqlalchemy",
    "structlog",
    "typer",
)


def _copy_of_the_tree(target: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__", "static", "web"))
    contracts = target / "tests" / "architecture"
    contracts.mkdir(parents=True)
    for name in (
        "tests/__init__.py",
        "tests/architecture/__init__.py",
        "tests/architecture/import_contracts.py",
        "pyproject.toml",
    ):
        shutil.copy(ROOT / name, target / name)
    return target


def _plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        # A module and a package cannot share a name; the planted one wins.
        path.parent.with_suffix(".py").unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"\n{text}\n")


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_every_contract_is_kept() -> None:
    """The tree as it stands breaks no import contract."""
    run = _lint_imports(ROOT)
    assert run.returncode == 0, run.stdout


def test_every_contract_has_a_planted_violation() -> None:
    """A contract that nobody has seen fail proves nothing."""
    assert {contract["id"] for contract in CONTRACTS} == set(PLANTED)


@pytest.mark.parametrize("contract", CONTRACTS, ids=[contract["id"] for contract in CONTRACTS])
def test_a_planted_violation_is_caught(contract: dict[str, str], tmp_path: Path) -> None:
    """lint-imports fails on the planted import and names the contract and the module."""
    name, line = PLANTED[contract["id"]]
    root = _copy_of_the_tree(tmp_path)
    _plant(root, EXTRA_FILES.get(contract["id"], {}) | {name: line})
    run = _lint_imports(root)
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"{contract['name']} BROKEN" in " ".join(run.stdout.split())
    assert "planted" in run.stdout


def test_a_clock_next_door_is_no_way_around_purity(tmp_path: Path) -> None:
    """A brain that imports a module of agents which imports the clock is caught too."""
    root = _copy_of_the_tree(tmp_path)
    _plant(
        root, {"agents/reviewer/__init__.py": "from agents import next_door", "agents/next_door.py": "import random"}
    )
    run = _lint_imports(root)
    assert "agents.next_door -> random" in run.stdout


def test_importing_the_bus_loads_nothing_heavy() -> None:
    """`import hive_bus` loads no agents, terminal, model, telemetry or database toolkit."""
    script = f"import sys, hive_bus; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
