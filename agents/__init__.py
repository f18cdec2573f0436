"""Floor 4: who acts: the four brains, hands, models, tools, workspaces and the `Hive`; knows no HTTP, HTML or terminal.

The public door: names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agents.forking import Otherwise
    from agents.hive import Hive
    from agents.policy import Policy
    from agents.run import Run, RunResult
    from agents.tool import Tools
    from agents.tools import builtin_tools
    from agents.workflows.file import load_workflow
    from agents.workflows.workflow import Workflow

__all__ = ["Hive", "Otherwise", "Policy", "Run", "RunResult", "Tools", "Workflow", "builtin_tools", "load_workflow"]

_HOMES: Final[dict[str, str]] = {
    "Hive": "hive",
    "Otherwise": "forking",
    "Policy": "policy",
    "Run": "run",
    "RunResult": "run",
    "Tools": "tool",
    "Workflow": "workflows.workflow",
    "builtin_tools": "tools",
    "load_workflow": "workflows.file",
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` believes in every name

    def __getattr__(name: str) -> object:
        module = _HOMES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
