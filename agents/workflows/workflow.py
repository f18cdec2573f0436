"""Workflows: what a run is asked to do, as frozen values that read back from the log.

Owns the fields of a workflow and of its steps, their units and their defaults.
It knows no YAML and no files, and judges each step alone: what steps mean to
each other is ``task_graph``'s, where they stand in a file is ``workflow_file``'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from agents.workflows.references import Scope
from agents.workflows.templates import render_command, render_text, render_value
from hive_bus.budget import Budget

Kind: TypeAlias = Literal["run", "prompt", "tool"]
EffectClass: TypeAlias = Literal["pure", "idempotent", "reconcilable", "unsafe"]

PRIORITIES = {"critical": 1, "high": 3, "normal": 5, "low": 7, "background": 9}
KINDS: tuple[Kind, ...] = ("run", "prompt", "tool")
LONGEST_DURATION = 30 * 86_400.0
STEP_ID = r"^[A-Za-z0-9_-]{1,64}$"

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def parse_duration(value: object) -> float:
    """Return seconds for ``500ms``, ``10s``, ``1h30m``, or for a number of seconds.

    Raises:
        ValueError: it is no duration, or is longer than thirty days.
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip()
        if len(text) <= 40 and _DURATION.fullmatch(text):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
        elif re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text):
            seconds = float(text)
    if seconds is None:
        raise ValueError("must be a duration such as 500ms, 10s, 10m or 1h30m")
    if not 0 <= seconds <= LONGEST_DURATION:
        raise ValueError("must be between 0 and 30 days")
    return round(seconds, 6)


def _timeout(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _priority(value: object) -> int:
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 9:
        return value
    raise ValueError(f"must be 1 to 9, or {', '.join(PRIORITIES)}")


def _review(value: object) -> int:
    if isinstance(value, int) and 0 <= value <= 9:
        return int(value)
    raise ValueError("must be true, false, or the number of reviewers (0 to 9)")


def _approval(value: object) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError("must be true, false, or the question to ask")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


Text = Annotated[str, BeforeValidator(lambda value: _text(value) if isinstance(value, str) else value)]
StepId = Annotated[str, StringConstraints(pattern=STEP_ID)]
Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)]
Timeout = Annotated[float, BeforeValidator(_timeout, json_schema_input_type=str | float)]
Priority = Annotated[
    int,
    BeforeValidator(
        _priority,
        json_schema_input_type=Annotated[int, Field(ge=1, le=9)]
        | Literal["critical", "high", "normal", "low", "background"],
    ),
]
Reviewers = Annotated[int, BeforeValidator(_review, json_schema_input_type=bool | Annotated[int, Field(ge=0, le=9)])]
Approval = Annotated[bool | str, BeforeValidator(_approval, json_schema_input_type=bool | str)]
Retries = Annotated[StrictInt, Field(ge=0, le=100)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Needs = Annotated[tuple[StepId, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Variables = dict[Annotated[str, StringConstraints(pattern=_VARIABLE)], str]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, validate_default=False, use_attribute_docstrings=True
    )


class Step(_Frozen):
    """One step of a workflow: exactly one of ``run``, ``prompt`` and ``tool`` says what it does."""

    id: StepId
    """Its name within the workflow: letters, digits, `_` and `-`, at most 64."""
    name: Text | None = None
    """What people see instead of the id."""
    run: Text | None = None
    """A command for `sh -c`; values are put in shell-quoted."""
    prompt: Text | None = None
    """What a drone is asked to do; values are put in as they are."""
    tool: Text | None = None
    """The name of a registered tool."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict, alias="with")
    """The tool's arguments."""
    needs: Needs = ()
    """The steps that must have ended before this one is looked at."""
    when: Text | None = None
    """A condition; the step is skipped unless it holds. Without one: `success()`."""
    retries: Retries = 0
    """How many new tries a failed step gets (0 to 100)."""
    backoff: Duration = 1.0
    """The wait before the first new try; it doubles with each further one."""
    timeout: Timeout = 3_600.0
    """The longest that one try may run; waiting for workers or people does not count."""
    capability: Text | None = None
    """The label a worker or drone must have to be given this step."""
    model: Text | None = None
    """The model of a `prompt` step's drone; without one, the hive's default."""
    tools: Names | None = None
    """The tools a `prompt` step's drone may use; without a list, all of its profile's."""
    priority: Priority = 5
    """1 (critical) to 9 (background); a number or critical, high, normal, low, background."""
    env: Variables = Field(default_factory=dict)
    """Variables for the step's commands, on top of those the sandbox lets through."""
    review: Reviewers = 0
    """How many reviewers must approve the result; true is one."""
    approval: Approval = False
    """Whether a person must agree before the step starts; a text is the question put to them."""
    effect: EffectClass | None = None
    """What a crash between start and result allows; without one the kind of step decides."""

    @property
    def kind(self) -> Kind:
        """Which of the three the step is."""
        return "run" if self.run is not None else "prompt" if self.prompt is not None else "tool"

    @property
    def title(self) -> str:
        """Its name, or its id where it has none."""
        return self.name or self.id

    @field_validator("env")
    @classmethod
    def _without_nul(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if "\0" in value:
                raise ValueError(f"{name} must not hold a NUL character")
        return env

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not given:
            raise ValueError("a step needs one of run, prompt and tool")
        if len(given) > 1:
            raise ValueError(f"a step is one of run, prompt and tool, not {' and '.join(given)}")
        if self.arguments and self.tool is None:
            raise ValueError("`with` holds the arguments of a tool, and this step has none")
        for field in ("model", "tools"):
            if getattr(self, field) is not None and self.prompt is None:
                raise ValueError(f"`{field}` is for prompt steps")
        return self

    def rendered(self, scope: Scope) -> Step:
        """Return this step with every placeholder replaced by its value.

        The step's own ``env`` is rendered first and is what ``{{ env.NAME }}`` means.

        Raises:
            TemplateError: a value does not exist; the step has to fail with that reason.
        """
        env = {name: render_text(value, scope) for name, value in self.env.items()}
        inner = Scope(run_id=scope.run_id, goal=scope.goal, name=scope.name, steps=scope.steps, env=env)
        changes: dict[str, Any] = {"env": env}
        if self.run is not None:
            changes["run"] = render_command(self.run, inner)
        if self.prompt is not None:
            changes["prompt"] = render_text(self.prompt, inner)
        if self.arguments:
            changes["arguments"] = render_value(self.arguments, inner)
        if isinstance(self.approval, str):
            changes["approval"] = render_text(self.approval, inner)
        return self.model_copy(update=changes)


class Workflow(_Frozen):
    """A workflow as the log keeps it: every default applied, every duration in seconds."""

    name: Annotated[Text, Field(max_length=200)]
    """What people see."""
    goal: Text | None = None
    """What the whole run is for; `{{ run.goal }}`."""
    max_parallel: Annotated[StrictInt, Field(ge=1, le=10_000)] = 8
    """How many steps may run side by side."""
    budget: Budget | None = None
    """What the whole run may use: `usd`, `tokens`, `calls`, `time`; the run pauses where the next call may need more."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10_000)]
    """What is to be done; the order decides nothing but the order of equals."""

    @cached_property
    def by_id(self) -> Mapping[str, Step]:
        """The steps by their ids, in file order."""
        return {step.id: step for step in self.steps}

    def step(self, step_id: str) -> Step:
        """Return a step by its id.

        Raises:
            KeyError: there is none.
        """
        return self.by_id[step_id]

    def ancestors(self, step_id: str) -> frozenset[str]:
        """Return the ids of everything a step needs, directly or through others."""
        found: set[str] = set()
        waiting = list(self.by_id[step_id].needs)
        while waiting:
            need = waiting.pop()
            if need not in found and need in self.by_id:
                found.add(need)
                waiting.extend(self.by_id[need].needs)
        return frozenset(found)


class Defaults(_Frozen):
    """What every step of a file gets unless it says otherwise."""

    retries: Retries | None = None
    """See the step's field."""
    backoff: Duration | None = None
    """See the step's field."""
    timeout: Timeout | None = None
    """See the step's field."""
    capability: Text | None = None
    """See the step's field."""
    model: Text | None = None
    """See the step's field; only `prompt` steps get it."""
    tools: Names | None = None
    """See the step's field; only `prompt` steps get it."""
    priority: Priority | None = None
    """See the step's field."""
    env: Variables = Field(default_factory=dict)
    """Variables for every step; a step's own of the same name win."""
    review: Reviewers | None = None
    """See the step's field."""

    def applied_to(self, step: Step) -> Step:
        """Return the step with these values wherever it names none itself."""
        changes: dict[str, Any] = {
            name: value
            for name in Defaults.model_fields
            if name != "env"
            and (value := getattr(self, name)) is not None
            and name not in step.model_fields_set
            and (step.kind == "prompt" or name not in ("model", "tools"))
        }
        if self.env:
            changes["env"] = {**self.env, **step.env}
        return step.model_copy(update=changes) if changes else step


class WorkflowFile(Workflow):
    """A workflow as people write it: with ``defaults`` beside the steps."""

    defaults: Defaults = Defaults()
    """Values for every step that names none itself."""

    def normalised(self) -> Workflow:
        """Return the workflow with its defaults applied."""
        return Workflow(
            name=self.name,
            goal=self.goal,
            max_parallel=self.max_parallel,
            budget=self.budget,
            steps=tuple(self.defaults.applied_to(step) for step in self.steps),
        )
