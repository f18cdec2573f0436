"""The tools that come with the hive, and ``@tool`` to make more of them."""

from agents.tool import Tools
from agents.tools.commands import command, command_outcome, noop, step_outcome
from agents.tools.files import edit, list_, read, write
from agents.tools.function import FunctionTool, tool
from agents.tools.searches import find, grep

__all__ = [
    "FunctionTool",
    "builtin_tools",
    "command",
    "command_outcome",
    "edit",
    "find",
    "grep",
    "list_",
    "noop",
    "read",
    "step_outcome",
    "tool",
    "write",
]


def builtin_tools() -> Tools:
    """A registry of the built-in tools, to which yours can be added."""
    return Tools(read, write, edit, list_, find, grep, command, noop)
