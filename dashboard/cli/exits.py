"""Exit codes, and which error ends with which: the one table that scripts rely on."""

from __future__ import annotations

from typing import Final

COMPLETED: Final = 0
FAILED: Final = 1
"""The run failed, the audit found something, today's code decides otherwise."""
USAGE: Final = 2
"""The command line or a file is wrong."""
WAITING: Final = 3
"""A person has to answer before it can go on."""
NOT_FOUND: Final = 4
INTERRUPTED: Final = 130

_USAGE: Final = frozenset(
    {
        "AgentNotLoaded",
        "BudgetInvalid",
        "ExpressionError",
        "FieldMissing",
        "FileUnusable",
        "HistoryUnusable",
        "InvalidTopic",
        "ModelNotChosen",
        "ModelNotInstalled",
        "ModelSettingInvalid",
        "ModelSettingMissing",
        "MomentInvalid",
        "NotARepository",
        "PayloadRefused",
        "RunIdInvalid",
        "ScriptInvalid",
        "SettingInvalid",
        "UnknownModel",
        "UnregisteredTopic",
        "UnsupportedUrl",
        "UsageWrong",
        "WorkflowFileError",
        "WorkspaceMissing",
    }
)
_NOT_FOUND: Final = frozenset({"NotFound", "NoHiveHere", "NothingWaits", "NothingToRetry"})


def exit_code_of(error: Exception) -> int:
    """The exit code that an error ends a command with."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _USAGE:
        return USAGE
    return NOT_FOUND if names & _NOT_FOUND else FAILED
