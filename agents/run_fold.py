"""How events move a run: the queen's ``evolve``, one small function for each event.

Owns what an event means for the state. It decides nothing: what follows from the
state is ``queen``'s. An event that does not fit the state (a late result, another
try's answer) leaves it as it is, for the log may hold what came too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agents.run_fold_branch import BRANCH_STEPS
from agents.run_fold_effects import EFFECT_STEPS
from agents.run_fold_tasks import TASK_STEPS
from agents.run_state import NOTHING, Fold, Run, changed
from hive_bus.brains.brain import Input
from hive_bus.event import Event
from hive_bus.events import budget, workflow

__all__ = ["FOLDS", "fold"]


def fold(run: Run, record: Input) -> Run:
    """The run after an event."""
    step = _STEPS.get(type(record.event))
    return run if step is None else step(run, record.event, record)


def _requested(run: Run, event: workflow.WorkflowRequested, record: Input) -> Run:
    if run.phase != "new":
        return run
    definition = event.definition or {}
    return changed(
        run,
        id=run.id or record.correlation_id,
        phase="asked",
        goal=event.goal or definition.get("goal") or "",
        name=event.name or definition.get("name") or "",
        workspace=event.workspace,
        model=event.model,
        tools=event.tools,
        max_parallel=run.terms.max_parallel or max(1, _places(event, definition)),
        approve=run.terms.approve or event.approve,
        review=event.review if run.terms.review is None else run.terms.review,
        definition=event.definition is not None,
    )


def _places(event: workflow.WorkflowRequested, definition: Mapping[str, Any]) -> int:
    """The request's word, where it has one; else the file's."""
    unsaid = workflow.WorkflowRequested.model_fields["max_parallel"].default
    written = definition.get("max_parallel")
    return written if event.max_parallel == unsaid and isinstance(written, int) else event.max_parallel


def _cancel_requested(run: Run, event: workflow.WorkflowCancelRequested, _record: Input) -> Run:
    return run if run.phase == "ended" else changed(run, cancelling=True, reason=event.reason or "asked to stop")


def _pause_requested(run: Run, _event: workflow.WorkflowPauseRequested, _record: Input) -> Run:
    return changed(run, pause_wanted=True)


def _resume_requested(run: Run, _event: workflow.WorkflowResumeRequested, _record: Input) -> Run:
    return changed(run, pause_wanted=False)


def _budget_exceeded(run: Run, event: budget.BudgetExceeded, _record: Input) -> Run:
    return changed(run, over_budget=event.reason or "the budget is used up")


def _budget_free(run: Run, _event: Any, _record: Input) -> Run:
    return changed(run, over_budget="")


def _paused(run: Run, _event: workflow.WorkflowPaused, _record: Input) -> Run:
    return changed(run, paused=True)


def _resumed(run: Run, _event: workflow.WorkflowResumed, _record: Input) -> Run:
    if run.phase != "ended":
        return changed(run, paused=False)
    return changed(run, phase="running", paused=False, pause_wanted=False, cancelling=False, reason="", finish=NOTHING)


def _plan_requested(run: Run, event: workflow.WorkflowPlanRequested, _record: Input) -> Run:
    return changed(run, phase="planning", plan_attempt=event.attempt, awaits_plan=True, plan=(), plan_error="")


def _plan_generated(run: Run, event: workflow.WorkflowPlanGenerated, _record: Input) -> Run:
    if not run.awaits_plan or event.attempt != run.plan_attempt:
        return run
    return changed(run, phase="planned", awaits_plan=False, plan=event.tasks, plan_error=event.error)


def _ended(run: Run, _event: Any, _record: Input) -> Run:
    return changed(run, phase="ended", plan=(), intents={})


_STEPS: Final[Mapping[type[Event], Fold]] = {
    workflow.WorkflowRequested: _requested,
    workflow.WorkflowCancelRequested: _cancel_requested,
    workflow.WorkflowPauseRequested: _pause_requested,
    workflow.WorkflowResumeRequested: _resume_requested,
    budget.BudgetExceeded: _budget_exceeded,
    budget.BudgetCleared: _budget_free,
    budget.BudgetSet: _budget_free,
    workflow.WorkflowPaused: _paused,
    workflow.WorkflowResumed: _resumed,
    workflow.WorkflowPlanRequested: _plan_requested,
    workflow.WorkflowPlanGenerated: _plan_generated,
    workflow.WorkflowCompleted: _ended,
    workflow.WorkflowFailed: _ended,
    workflow.WorkflowCancelled: _ended,
    **BRANCH_STEPS,
    **TASK_STEPS,
    **EFFECT_STEPS,
}

FOLDS: Final = tuple(cls.TOPIC for cls in _STEPS)
"""The topics that move a run."""
