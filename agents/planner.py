"""The planner: from a goal to a task graph, through a model or straight from a workflow file.

Owns the conversation with the model and the reading of its answer. Whether a plan
is taken is the queen's to judge: what cannot be read at all goes to her as an error,
and she asks again with the reasons. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from agents.conversation import Conversation, ask, ask_again, heard, inherited, lapsed
from agents.model import text_of
from agents.plan import PlanFault, loads, spec_of, steps_of
from agents.prompts import PLANNER_SYSTEM, planner_prompt
from agents.terms import NO_BRANCH, Terms
from hive_bus.brains.brain import Brain, Input
from hive_bus.event import Draft, Event
from hive_bus.events.model import ModelCancelled, ModelCancelRequested, ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.workflow import (
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowForked,
    WorkflowPlanGenerated,
    WorkflowPlanRequested,
    WorkflowRequested,
)

__all__ = ["Planner", "Planning"]

CONVERSATION: Final = "planner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What the planner knows of a run.

    ``wanted`` is the attempt that waits for a plan, 0 when none does. ``answer`` is the model's
    text, ``fault`` why there is none; both are empty until a call has ended.
    """

    goal: str = ""
    definition: dict[str, Any] | None = None
    workspace: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    wanted: int = 0
    reasons: tuple[str, ...] = ()
    talk: Conversation = field(default_factory=lambda: Conversation(name=CONVERSATION, role="planner"))
    answer: str | None = None
    fault: str = ""
    unanswered: bool = False
    cancelling: bool = False
    over: bool = False
    terms: Terms = NO_BRANCH


class Planner(Brain[Planning]):
    """Answers every ``workflow.plan_requested`` with one ``workflow.plan_generated``."""

    name: ClassVar[str] = "planner"
    version: ClassVar[int] = 1
    opens: ClassVar[str] = "workflow.requested"
    modules: ClassVar[tuple[str, ...]] = (
        "agents.conversation",
        "agents.plan",
        "agents.prompts",
        "agents.terms",
        "agents.workflows.workflow",
    )
    folds: ClassVar[tuple[str, ...]] = (
        "workflow.requested",
        "workflow.forked",
        "workflow.plan_requested",
        "workflow.plan_generated",
        "workflow.cancel_requested",
        "workflow.completed",
        "workflow.failed",
        "workflow.cancelled",
        "model.requested",
        "model.responded",
        "model.failed",
        "model.cancelled",
        "model.cancel_requested",
    )

    def initial(self) -> Planning:
        """Nothing is wanted yet."""
        return Planning()

    def evolve(self, state: Planning, record: Input) -> Planning:
        """What an event means for the planning."""
        match record.event:
            case WorkflowRequested() as asked:
                return replace(
                    state,
                    goal=asked.goal,
                    definition=asked.definition,
                    workspace=asked.workspace,
                    tools=asked.tools,
                    talk=replace(state.talk, model=state.terms.model("planner", asked.model)),
                )
            case WorkflowForked():
                return replace(state, talk=lapsed(state.talk))
            case WorkflowPlanRequested(attempt=attempt, reasons=reasons):
                # A turn without a reply cannot be built upon.
                anew = Conversation(name=f"{CONVERSATION}:{attempt}", role="planner", model=state.talk.model)
                talk = anew if state.unanswered else state.talk
                return replace(
                    state, wanted=attempt, reasons=reasons, answer=None, fault="", talk=talk, unanswered=False
                )
            case WorkflowPlanGenerated():
                return replace(state, wanted=0, reasons=(), answer=None, fault="")
            case WorkflowCancelRequested():
                return replace(state, cancelling=True)
            case WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled():
                return replace(state, over=True)
            case ModelRequested(role="planner") | ModelCancelRequested():
                return replace(state, talk=heard(state.talk, record))
            case ModelResponded(message=message) if record.causation_id == state.talk.open:
                answer = text_of(message.get("content", ()))
                return replace(state, talk=heard(state.talk, record), answer=answer)
            case ModelFailed(reason=reason) | ModelCancelled(reason=reason) if record.causation_id == state.talk.open:
                fault = reason or "the model call was cancelled"
                return replace(state, talk=heard(state.talk, record), fault=fault, unanswered=True)
            case _:
                return state

    def decide(self, state: Planning, record: Input) -> Sequence[Event | Draft]:
        """Ask the model, or hand over a plan."""
        if not state.wanted or state.over:
            return ()
        if state.talk.open:
            return state.talk.cancel() if state.cancelling else ()
        if state.cancelling:
            return (WorkflowPlanGenerated(attempt=state.wanted, error="the run was cancelled"),)
        if state.definition is not None:
            return (_plan(state, state.definition),)
        if state.fault:
            return (WorkflowPlanGenerated(attempt=state.wanted, error=f"the planner's model failed: {state.fault}"),)
        if state.answer is not None:
            return (_read(state, state.answer),)
        system = state.terms.prompt("planner", PLANNER_SYSTEM)
        if state.talk.again:
            return (ask_again(state.talk, system=system),)
        prompt = planner_prompt(
            state.goal,
            workspace=state.workspace or {},
            tools=state.tools,
            reasons=state.reasons if state.talk.turn else (),
        )
        return (ask(state.talk, prompt, system=system),)

    def inherit(self, state: Planning, forked: Input) -> Planning:
        """The planning under the branch's terms."""
        assert isinstance(forked.event, WorkflowForked), forked
        terms = state.terms.under(forked.event)
        return replace(state, terms=terms, talk=inherited(state.talk, model=terms.model("planner", state.talk.model)))

    def ended(self, state: Planning) -> bool:
        """Whether the run has ended and no call is open."""
        return state.over and not state.talk.open


def _read(state: Planning, answer: str) -> Event:
    try:
        return _plan(state, loads(answer))
    except PlanFault as fault:
        return WorkflowPlanGenerated(attempt=state.wanted, error="; ".join(fault.reasons))


def _plan(state: Planning, value: Any) -> Event:
    try:
        tasks = tuple(spec_of(step) for step in steps_of(value))
    except PlanFault as fault:
        return WorkflowPlanGenerated(attempt=state.wanted, error="; ".join(fault.reasons))
    return WorkflowPlanGenerated(attempt=state.wanted, tasks=tasks)
