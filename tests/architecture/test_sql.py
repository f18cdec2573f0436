"""SQL text lives on floor 2 and nowhere else."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.architecture.tree import PACKAGES, name_of, python_files

if TYPE_CHECKING:
    from collections.abc import Iterator

STATEMENT = re.compile(
    r"""\s*(
      SELECT\s+(.+\sFROM\s | \d | (count|max|min|exists|coalesce|pg_\w+)\s*\()
    | (INSERT\s+(OR\s+\w+\s+)? | REPLACE\s+)INTO\s
    | UPDATE\s+\S+\s+SET\s
    | DELETE\s+FROM\s
    | (CREATE|DROP|ALTER)\s+(UNIQUE\s+|TEMP\s+|TEMPORARY\s+|OR\s+REPLACE\s+)?(TABLE|INDEX|TRIGGER|VIEW|SCHEMA|FUNCTION)\s
    | WITH\s+(RECURSIVE\s+)?\w+(\s*\([^)]*\))?\s+AS\s+(NOT\s+MATERIALIZED\s+)?\(
    | PRAGMA\s+\w+
    | BEGIN\s+(IMMEDIATE|EXCLUSIVE|TRANSACTION)
    | (LISTEN|NOTIFY)\s+\w+\s*[;,]
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def is_sql(text: str) -> bool:
    """Say whether a string is an SQL statement; people write its keywords in one case, sentences begin with a capital."""
    return STATEMENT.match(text) is not None and not text.split(maxsplit=1)[0].istitle()


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_no_sql_outside_the_store() -> None:
    """No string on another floor is an SQL statement."""
    found = [
        f"{name_of(path)}:{node.lineno}: {str(node.value).strip()[:60]!r}"
        for path in python_files(*(package for package in PACKAGES if package != "hive_core_db"))
        for node in _strings(ast.parse(path.read_text()))
        if is_sql(str(node.value))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT position FROM events WHERE position > ?",
        "\n  select max(position)\n  from events",
        "INSERT OR IGNORE INTO blobs VALUES (?)",
        "UPDATE work SET fence = fence + 1",
        "WITH RECURSIVE chain(id) AS (SELECT 1)",
        "PRAGMA data_version",
        "BEGIN IMMEDIATE",
    ],
)
def test_statements_are_recognised(text: str) -> None:
    """What is SQL is seen as SQL."""
    assert is_sql(text)


@pytest.mark.parametrize(
    "text", ["Select one from the list", "update the plan", "Begin again", "with care", "notify me"]
)
def test_sentences_are_not_statements(text: str) -> None:
    """Prose that shares a word with SQL is left alone."""
    assert not is_sql(text)
