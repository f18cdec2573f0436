"""Modules of the user: found in the current directory first, as a script beside them would."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from hive_errors import UsageWrong


def import_here(module: str, *, name: str = "--module") -> None:
    """Import a module of the current directory or of the environment. Raises :class:`UsageWrong`, which names ``name``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except Exception as problem:
        raise UsageWrong(
            name=name,
            value=module,
            reason=f"importing it raised {type(problem).__name__}: {problem}",
            remedy="name a module as Python imports it; the current directory is searched first",
        ) from problem
