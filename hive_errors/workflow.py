"""What can go wrong with a workflow: its file, its conditions and the values put into its steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hive_errors.base import HiveError

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a workflow, and where.

    ``path`` leads to the field (names and list indices); ``line`` and ``column``
    count from 1 and are 0 where there is no file. ``value`` is the value as
    written, None where there is none; ``suggestion`` may be empty.
    """

    path: tuple[str | int, ...]
    reason: str
    value: str | None = None
    suggestion: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    @property
    def field(self) -> str:
        """The path as people write it: ``steps[3].needs[0]``."""
        text = ""
        for part in self.path:
            if isinstance(part, int):
                text += f"[{part}]"
            elif _PLAIN_KEY.match(part):
                text += f".{part}" if text else part
            else:
                text += f'["{part}"]'
        return text

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column} " if self.line else f"{self.file}: " if self.file else ""
        value = "" if self.value is None else _shortened(self.value)
        subject = " = ".join(part for part in (self.field, value) if part)
        parts = f"{subject}: {self.reason}" if subject else self.reason
        return f"{where}{parts}; {self.suggestion}" if self.suggestion else f"{where}{parts}"


def _shortened(value: str) -> str:
    line = value.replace("\r", "").replace("\n", "\\n")
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 3] + "..."


@dataclass(eq=False, kw_only=True)
class WorkflowFileError(HiveError):
    """The workflow cannot be run as it is written; every problem of it is listed."""

    code = "HIVE-WORKFLOW-001"
    hint = "mend the lines above, then run `hive validate {file}`; docs/workflows.md lists every field"

    file: str
    problems: tuple[Problem, ...]

    @property
    def message(self) -> str:
        """Every problem, one per line."""
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(eq=False, kw_only=True)
class ExpressionError(HiveError):
    """A condition cannot be read, or cannot be judged with the values there are."""

    code = "HIVE-WORKFLOW-002"
    sentence = "condition {expression!r}: {reason} at character {column}"
    hint = "see the section on conditions in docs/workflows.md"

    expression: str
    column: int
    reason: str
    suggestion: str = ""

    @property
    def advice(self) -> str:
        """The suggestion where there is one, else where to read."""
        return self.suggestion or self.hint


@dataclass(eq=False, kw_only=True)
class TemplateError(HiveError):
    """A value cannot be put into a step."""

    code = "HIVE-WORKFLOW-003"
    sentence = "placeholder {placeholder!r}: {reason}"
    hint = "see the section on values in docs/workflows.md"

    placeholder: str
    reason: str
    column: int = 0
    suggestion: str = ""

    @property
    def advice(self) -> str:
        """The suggestion where there is one, else where to read."""
        return self.suggestion or self.hint
