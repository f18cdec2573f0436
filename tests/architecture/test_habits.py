"""Habits that a reader can rely on, where no linter has a rule for them."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.architecture.tree import PACKAGES, name_of, python_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# These block a loop, or a thread beside it, because that is what they are about.
# A sleeping loop is what one tests; a server that starts sends no signal that the other could wait for.
MAY_SLEEP = {"tests/unit/test_watchdog.py", "tests/support/postgres.py", "tests/support/nats_server.py"}
MAY_SLEEP |= {"tests/support/nats_cluster.py", "tests/support/mirror_points.py"}
# A server that was killed, or forgot everything, is asked until it has what it should have; and where a live tail comes from, until it is that.
MAY_SLEEP |= {"tests/support/mirrors.py", "tests/support/followers.py"}
# How long their effects take, and when trouble comes, is their plot; nobody waits for an outcome with it.
MAY_SLEEP |= {
    "tests/integration/budget_process.py",
    "tests/integration/capacity_process.py",
    "tests/support/capacity.py",
    "tests/support/chaos.py",
    "tests/support/chaos_worker.py",
}
# Their time is the simulated loop's, where it passes at once: a sleep there is a step of the plot.
VIRTUAL_TIME = (
    "tests/simulation/",
    "tests/support/brains.py",
    "tests/support/forks_simulation.py",
    "tests/support/runs_hands.py",
    "tests/support/runs_simulation.py",
    "tests/support/sample_hands.py",
    "tests/support/shop_simulation.py",
    "tests/support/simulated.py",
)
# Written apart, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]) + r")\b")


def _calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def _waits(call: ast.Call) -> bool:
    argument = call.args[0] if call.args else None
    return not (isinstance(argument, ast.Constant) and argument.value == 0)


def test_no_test_sleeps() -> None:
    """A test waits for a position or a signal; the only sleep is `asyncio.sleep(0)`, which lets others run."""
    found = [
        f"{name_of(path)}:{call.lineno}"
        for path in python_files("tests")
        if name_of(path) not in MAY_SLEEP and not name_of(path).startswith(VIRTUAL_TIME)
        for call, name in _calls(path)
        if name in ("time.sleep", "asyncio.sleep", "sleep") and _waits(call)
    ]
    assert found == []


def test_every_task_has_an_owner() -> None:
    """Tasks are made by task groups; a bare `create_task` loses its errors."""
    bare = re.compile(r"(asyncio\.(create_task|ensure_future)|.*\bloop(\(\))?\.create_task|create_task|ensure_future)")
    found = [
        f"{name_of(path)}:{call.lineno}: {name}"
        for path in python_files(*PACKAGES, "tests")
        for call, name in _calls(path)
        if bare.fullmatch(name)
    ]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    """No file holds a note of unfinished work."""
    found = [
        f"{name_of(path)}:{number}"
        for path in python_files(*PACKAGES, "tests", "benchmarks", "examples")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_no_mocks() -> None:
    """The real thing runs; nothing imports a mocking library."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and re.search(r"\bmock\b", ast.unparse(node))
    ]
    assert found == []


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring that is a sentence."""
    found = [
        f"{name_of(path)}:{node.lineno}: {node.name}"
        for path in python_files("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
        if not (ast.get_docstring(node) or "").rstrip().endswith((".", "?", "!", "`", "..."))
    ]
    assert found == []
