"""What can go wrong before a model is called: its name, its settings, its script.

What goes wrong *while* a model is called is no exception: it is a value,
``agents.model.ModelFailure``, for the queue decides about the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from hive_errors.base import HiveError
from hive_errors.workflow import Problem


@dataclass(eq=False, kw_only=True)
class ModelError(HiveError):
    """A model cannot be opened."""

    code = "HIVE-MODEL-000"
    hint = "run `hive doctor` to see which models can be opened here"


@dataclass(eq=False, kw_only=True)
class UnknownModel(ModelError):
    """No implementation knows a model of this name."""

    code = "HIVE-MODEL-001"
    sentence = "model {name!r} is unknown"
    hint = "{suggestion}use scripted:FILE, claude-... or anthropic:NAME"

    name: str
    suggestion: str = ""


@dataclass(eq=False, kw_only=True)
class ModelSettingMissing(ModelError):
    """A model needs a setting which is neither given nor in the environment."""

    code = "HIVE-MODEL-002"
    sentence = "model {name!r} needs {setting}, which is not set"
    hint = "{remedy}"

    name: str
    setting: str
    remedy: str


@dataclass(eq=False, kw_only=True)
class ModelSettingInvalid(ModelError):
    """A setting of a model cannot be right; its value is not told, for it may be a secret."""

    code = "HIVE-MODEL-005"
    sentence = "{setting} of model {name!r} {reason}"
    hint = "look at its value: quotes, spaces or line ends that do not belong to it?"

    name: str
    setting: str
    reason: str


@dataclass(eq=False, kw_only=True)
class ModelNotInstalled(ModelError):
    """The package that a model's implementation is built on is not installed."""

    code = "HIVE-MODEL-003"
    sentence = "model {name!r} needs the package {package!r}, which is not installed"
    hint = "pip install 'hive-orchestrator[{extra}]'"

    name: str
    package: str
    extra: str


@dataclass(eq=False, kw_only=True)
class ScriptInvalid(ModelError):
    """A script of model answers cannot be used as it is written; every problem of it is listed."""

    code = "HIVE-MODEL-004"
    hint = (
        "mend the lines above; each role of {file} holds tasks, each task a list of answers: text, json, tools or fail"
    )

    file: str
    problems: tuple[Problem, ...]

    @property
    def message(self) -> str:
        """Every problem, one per line."""
        return "\n".join(str(problem) for problem in self.problems)
