"""Every package has one public door: `__all__` says what is behind it, no more and no less."""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING

import pytest

from tests.architecture.tree import PACKAGES, module_of, name_of, python_files

if TYPE_CHECKING:
    from pathlib import Path

FILES = [path for path in python_files(*PACKAGES) if path.name != "__main__.py" and "migrations" not in path.parts]
DOORS = [path for path in FILES if path.name == "__init__.py"]


def _open(path: Path) -> types.ModuleType:
    return importlib.import_module(module_of(path))


def _is_from_inside(name: str, value: object, package: str) -> bool:
    """Leave out modules, private names, and what a door borrows from elsewhere for its own use."""
    home = getattr(value, "__module__", None) or package
    is_plumbing = isinstance(value, types.ModuleType) or name in ("annotations", "TYPE_CHECKING")
    return not name.startswith("_") and not is_plumbing and f"{home}.".startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_a_module_promises_exists(path: Path) -> None:
    """Every name in `__all__` can be had, also where it is loaded lazily, and none is there twice."""
    module = _open(path)
    promised = getattr(module, "__all__", [])
    assert [name for name in promised if not hasattr(module, name)] == []
    assert len(set(promised)) == len(promised)


@pytest.mark.parametrize("path", DOORS, ids=name_of)
def test_what_a_door_shows_is_promised(path: Path) -> None:
    """A public name that a package's door takes from inside the package stands in its `__all__`."""
    module = _open(path)
    shown = {name for name, value in vars(module).items() if _is_from_inside(name, value, module.__name__)}
    assert sorted(shown - set(getattr(module, "__all__", []))) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_says_what_it_owns(path: Path) -> None:
    """Every module has a docstring of at least one sentence."""
    text = _open(path).__doc__ or ""
    assert text.strip(), "no docstring"
    assert any(mark in text for mark in ".:;?!"), "not a sentence"
