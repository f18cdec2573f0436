"""The life of a run, in its stream ``<run>/run``. People ask, the queen answers."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hive_bus.events.base import Fact
from hive_bus.upcasting import upcaster


class WorkflowRequested(Fact, topic="workflow.requested", version=2):
    """A person asks for a run: a goal for the planner, or a workflow's definition.

    ``definition`` is the normalised workflow file. ``workspace`` is empty for a run that needs
    none, else ``path``, and for a git workspace ``base`` (commit) and ``branch``. ``tools`` are
    the manifests (name, description, input_schema, effect) that drones may be given.
    ``approve`` is ``ask``, ``all`` or ``none``.
    """

    goal: str = ""
    name: str = ""
    definition: dict[str, Any] | None = None
    workspace: dict[str, Any] = Field(default_factory=dict)
    model: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    max_parallel: int = 8
    approve: str = "ask"
    review: bool = True


@upcaster("workflow.requested", from_version=1)
def _prompt_became_goal(data: dict[str, Any]) -> dict[str, Any]:
    return {("goal" if key == "prompt" else key): value for key, value in data.items()}


class WorkflowCancelRequested(Fact, topic="workflow.cancel_requested"):
    """A person asks the run to stop; nothing new starts, what runs is asked to end."""

    reason: str = ""


class WorkflowPauseRequested(Fact, topic="workflow.pause_requested"):
    """A person asks the run to start nothing new until it is resumed."""

    reason: str = ""


class WorkflowResumeRequested(Fact, topic="workflow.resume_requested"):
    """A person lets a paused run go on."""


class WorkflowForked(Fact, topic="workflow.forked", version=2):
    """A branch begins: it shares the history of ``parent`` up to ``position``, which was recorded at ``at`` (UTC µs).

    ``edits`` are other bodies for inherited events, by event id. What goes on otherwise from here: ``models`` and
    ``prompts`` (system prompts) by role (``planner``, ``reviewer``, ``drone``; ``""`` is all), ``max_parallel``,
    ``review``, ``approve`` (None: as it was). What is unsafe is blocked unless ``allow`` names it (``unsafe``).
    """

    parent: str = ""
    position: int = 0
    at: int = 0
    edits: dict[str, dict[str, Any]] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)
    prompts: dict[str, str] = Field(default_factory=dict)
    max_parallel: int | None = None
    review: bool | None = None
    approve: str | None = None
    allow: tuple[str, ...] = ()


@upcaster("workflow.forked", from_version=1)
def _nothing_was_changed(data: dict[str, Any]) -> dict[str, Any]:
    return data


class WorkflowLabelled(Fact, topic="workflow.labelled"):
    """A person gives a moment of the run a name: ``label`` means ``position``, and the last word about a label holds."""

    label: str = ""
    position: int = 0


class WorkflowStarted(Fact, topic="workflow.started"):
    """The queen took the run on."""

    name: str = ""
    goal: str = ""


class WorkflowPlanRequested(Fact, topic="workflow.plan_requested"):
    """The queen asks for a plan; ``reasons`` say what was wrong with the last one."""

    attempt: int = 1
    reasons: tuple[str, ...] = ()


class WorkflowPlanGenerated(Fact, topic="workflow.plan_generated"):
    """The planner proposes tasks (normalised workflow steps); ``error`` when it could not."""

    attempt: int = 1
    tasks: tuple[dict[str, Any], ...] = ()
    error: str = ""


class WorkflowPlanRejected(Fact, topic="workflow.plan_rejected"):
    """The plan has a cycle, an unknown need or capability, or is no plan."""

    attempt: int = 1
    reasons: tuple[str, ...] = ()


class WorkflowPaused(Fact, topic="workflow.paused"):
    """The run starts nothing new."""


class WorkflowResumed(Fact, topic="workflow.resumed"):
    """The run goes on."""


class WorkflowCompleted(Fact, topic="workflow.completed"):
    """Every task ended well. ``branch`` and ``merge_command`` tell where the work lies if it was not merged."""

    output: str = ""
    commit: str | None = None
    branch: str | None = None
    merge_command: str | None = None


class WorkflowFailed(Fact, topic="workflow.failed"):
    """The run ended without reaching its goal."""

    reason: str = ""


class WorkflowCancelled(Fact, topic="workflow.cancelled"):
    """The run ended because somebody asked it to."""

    reason: str = ""
