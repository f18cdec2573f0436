"""What the packages import is what pyproject.toml asks for, and constraints.txt pins all of it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires

from tests.architecture.tree import PACKAGES, ROOT, python_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SHIPPED = {"dev", "peers"}
# Installed with its parent, which pins it to one exact version.
PART_OF = {"pydantic-core": "pydantic"}


def _plain(requirement: str) -> str:
    """Return a requirement's name in its canonical spelling."""
    name = re.split(r"[\s\[<>=!~;]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported() -> set[str]:
    found: set[str] = set()
    for path in python_files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - set(PACKAGES)


def _pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_imports_are_declared() -> None:
    """Every foreign module that a shipped package imports comes from a dependency or an extra."""
    declared = {_plain(item) for item in PROJECT["dependencies"]}
    declared |= {part for part, whole in PART_OF.items() if whole in declared}
    for extra, items in PROJECT["optional-dependencies"].items():
        declared |= {_plain(item) for item in items if extra not in NOT_SHIPPED}
    homes = packages_distributions()
    missing = {
        module: homes.get(module, ["not installed"])
        for module in _imported()
        if not {_plain(home) for home in homes.get(module, [])} & declared
    }
    assert missing == {}


def test_every_installed_need_is_pinned() -> None:
    """constraints.txt names an exact version of all that `make setup` installs, directly or through others."""
    pinned, todo, seen = _pinned(), ["hive-orchestrator"], set[str]()
    extras_wanted = {
        "hive-orchestrator": {"dev", "claude", "nats", "nats-server", "otel", "postgres"},
        "nats-py": {"nkeys"},
    }
    unpinned = []
    while todo:
        name = todo.pop()
        for requirement in requires(name) or []:
            need, marker = _plain(requirement), requirement.partition(";")[2]
            extra = re.search(r"extra == [\"']([\w-]+)[\"']", marker)
            if need in seen or (extra and extra[1] not in extras_wanted.get(name, set())):
                continue
            if extra is None and marker:
                continue  # for another platform or interpreter; what applies here is pinned by pip freeze
            seen.add(need)
            if need != "hive-orchestrator":
                todo.append(need)
                unpinned += [need] if need not in pinned else []
    assert unpinned == []


def test_pins_are_exact_versions() -> None:
    """A pin is `name==version`, without addresses, hashes or paths."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line)] == []
