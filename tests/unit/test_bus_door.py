"""The public door of the bus: everything is there, and importing it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hive_bus

ROOT = Path(__file__).parents[2]
HEAVY = (
    "sqlalchemy",
    "alembic",
    "structlog",
    "anthropic",
    "typer",
    "rich",
    "opentelemetry",
    "ruamel",
    "agents",
)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


def test_every_promised_name_is_there() -> None:
    """Each is loaded when first asked for, and listed before."""
    assert set(hive_bus.__all__) <= set(dir(hive_bus))
    for name in hive_bus.__all__:
        assert getattr(hive_bus, name) is not None


def test_an_unknown_name_is_an_ordinary_error() -> None:
    """The lazy door does not hide a typing mistake."""
    with pytest.raises(AttributeError, match="no attribute 'publsh'"):
        hive_bus.publsh  # type: ignore[attr-defined]  # noqa: B018 - the access is the test


def test_nothing_heavy_is_loaded_by_using_every_name() -> None:
    """Neither importing the package nor any public name loads a database, a model or a terminal."""
    code = f"""
import sys, hive_bus
for name in hive_bus.__all__:
    getattr(hive_bus, name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert _python(code).stdout == "[]\n"


def test_importing_loads_next_to_nothing() -> None:
    """The package alone loads no module of its own and no pydantic: well under the 0.2 seconds it may cost."""
    code = "import sys, hive_bus; print(sorted(n for n in sys.modules if n.startswith(('hive_', 'pydantic'))))"
    assert _python(code).stdout == "['hive_bus']\n"
