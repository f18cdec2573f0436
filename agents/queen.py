"""The queen: a run's state machine, and the only one that changes a run's or a task's state.

Owns what follows from the state of a run: asking for a plan, releasing tasks, ending
the run. How a single task goes on is ``queen_tasks``'s, what an event means is
``run_fold``'s. Pure: no clock, no randomness, no I/O.

    workflow.requested -> started, plan_requested -> plan_generated -> tasks created
    task: needs done -> (approval) -> ready -> returned -> completed | failed | retried
    prompt: ready -> drone -> diff -> review -> merge -> completed | retried with comments
    all tasks ended -> (branch handed over) -> completed | failed | cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agents.plan import judge_plan, repaired_by, spec_of, steps_of
from agents.queen_tasks import advance, interrupt, release, wake
from agents.queen_turn import Turn
from agents.run_fold import FOLDS, fold
from agents.run_fold_branch import inherit
from agents.run_state import OpenIntent, Run
from hive_bus.brains.brain import Brain, Input
from hive_bus.effects import EffectClass
from hive_bus.event import Draft, Event
from hive_bus.events.approval import ApprovalCancelRequested
from hive_bus.events.task import TaskCancelled, TaskCancelRequested, TaskCreated, TaskRetried
from hive_bus.events.timer import TimerCancelRequested
from hive_bus.events.tool import ToolCancelRequested, ToolRequested
from hive_bus.events.workflow import (
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowForked,
    WorkflowPaused,
    WorkflowPlanRejected,
    WorkflowPlanRequested,
    WorkflowResumed,
    WorkflowStarted,
)

__all__ = ["PLAN_ATTEMPTS", "Queen"]

PLAN_ATTEMPTS = 3
_NAMED = 3


class Queen(Brain[Run]):
    """Takes a run from its request to its end."""

    name: ClassVar[str] = "queen"
    version: ClassVar[int] = 1
    folds: ClassVar[tuple[str, ...]] = FOLDS
    opens: ClassVar[str] = "workflow.requested"
    modules: ClassVar[tuple[str, ...]] = (
        "agents.workflows.grammar",
        "agents.workflows.expressions",
        "agents.plan",
        "agents.prompts",
        "agents.queen_tasks",
        "agents.queen_turn",
        "agents.workflows.references",
        "agents.run_conditions",
        "agents.run_fold",
        "agents.run_fold_branch",
        "agents.run_fold_effects",
        "agents.run_fold_tasks",
        "agents.run_state",
        "agents.workflows.shell_positions",
        "agents.workflows.task_graph",
        "agents.workflows.templates",
        "agents.terms",
        "agents.workflows.workflow",
    )

    def initial(self) -> Run:
        """A run that nobody has asked for yet."""
        return Run()

    def evolve(self, state: Run, record: Input) -> Run:
        """See ``run_fold``."""
        return fold(state, record)

    def decide(self, state: Run, record: Input) -> Sequence[Event | Draft]:
        """Everything that follows from the state, in one go."""
        if state.phase == "new" or (state.phase == "ended" and not state.retries):
            return ()
        turn = Turn(state)
        wake(turn)
        _begin(turn)
        _pause(turn)
        _retry(turn)
        if turn.run.cancelling and not _handed_over(turn.run):
            _cancel(turn)
        elif turn.run.phase != "ended":
            _work(turn)
        return turn.events

    def inherit(self, state: Run, forked: Input) -> Run:
        """See ``run_fold_branch``."""
        assert isinstance(forked.event, WorkflowForked), forked
        return inherit(state, forked.event, forked.correlation_id)

    def ended(self, state: Run) -> bool:
        """Whether the run has ended; a person's retry may still reopen it."""
        return state.phase == "ended"


def _begin(turn: Turn) -> None:
    """Take the run on, and judge its plan."""
    run = turn.run
    if run.phase == "asked" and not run.cancelling:
        turn.emit(WorkflowStarted(name=run.name, goal=run.goal))
        turn.emit(WorkflowPlanRequested(attempt=1))
    elif run.phase == "planned" and not run.cancelling:
        _judge(turn)


def _judge(turn: Turn) -> None:
    run = turn.run
    reasons = (run.plan_error,) if run.plan_error else judge_plan(run.plan, run.tools)
    if not reasons:
        _create(turn)
        return
    turn.emit(WorkflowPlanRejected(attempt=run.plan_attempt, reasons=reasons))
    # The same definition would be answered with the same plan.
    if run.definition or run.plan_attempt >= PLAN_ATTEMPTS:
        count = "" if run.definition else f" {run.plan_attempt} times"
        turn.emit(WorkflowFailed(reason=f"the plan was refused{count}: {'; '.join(reasons)}"))
    else:
        turn.emit(WorkflowPlanRequested(attempt=run.plan_attempt + 1, reasons=reasons))


def _create(turn: Turn) -> None:
    specs = [spec_of(step) for step in steps_of(turn.run.plan)]
    after = repaired_by(specs)
    for spec in specs:
        more = {"after": after[spec["id"]]} if spec["id"] in after else {}
        name = spec.get("name", spec["id"])
        turn.emit(TaskCreated(task_id=spec["id"], name=name, needs=tuple(spec["needs"]), spec=spec, **more))


def _pause(turn: Turn) -> None:
    run = turn.run
    wanted = run.pause_wanted or bool(run.over_budget)
    if run.phase == "ended" or wanted == run.paused:
        return
    more = {"reason": run.over_budget} if run.over_budget else {}
    turn.emit(WorkflowPaused(**more) if wanted else WorkflowResumed())


def _retry(turn: Turn) -> None:
    """Another try that a person asked for; it takes an ended run up again."""
    for task_id, reason in turn.run.retries:
        if turn.run.phase == "ended":
            turn.emit(WorkflowResumed())
        task = turn.run.tasks[task_id]
        if task.ended:
            turn.emit(TaskRetried(task_id=task_id, try_number=task.try_number + 1, reason=reason or "asked for"))


def _work(turn: Turn) -> None:
    """Do what every task needs, fill the free places, and end the run when nothing is left."""
    advance(turn)
    run = turn.run
    if run.phase == "running" and run.tasks and not run.open:
        _finish(turn)
    elif run.phase == "finished":
        _complete(turn)
    else:
        release(turn)
        if turn.run.phase == "running" and not turn.run.open:  # the last ones failed before they could start
            _finish(turn)


def _finish(turn: Turn) -> None:
    run = turn.run
    failed = [task for task in run.tasks.values() if task.phase == "failed" and not run.repaired(task.id)]
    failed += [task for task in run.tasks.values() if task.phase == "cancelled"]
    if failed:
        named = "; ".join(f"{task.id}: {task.reason or task.phase}" for task in failed[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        turn.emit(WorkflowFailed(reason=f"{named}{more}"))
    elif run.drones and run.in_git:
        turn.emit(
            ToolRequested(
                tool="workspace.finish",
                input={"commit": run.tip, "branch": run.workspace.get("branch")},
                effect=EffectClass.IDEMPOTENT,
                workspace=run.place,
            )
        )
    else:
        turn.emit(WorkflowCompleted(output=_output(run)))


def _handed_over(run: Run) -> bool:
    """Whether the branch is with its owner already: too late to cancel."""
    return run.phase == "finished" and run.finish.outcome == "completed"


def _complete(turn: Turn) -> None:
    run = turn.run
    if run.finish.outcome != "completed":
        where = f"; the result is commit {run.tip}" if run.head else ""
        turn.emit(WorkflowFailed(reason=f"the branch could not be handed over: {run.finish.output}{where}"))
        return
    data = run.finish.data if isinstance(run.finish.data, dict) else {}
    turn.emit(
        WorkflowCompleted(
            output=_output(run),
            commit=data.get("commit") or run.tip,
            branch=data.get("branch") if data.get("merge_command") else data.get("target"),
            merge_command=data.get("merge_command"),
        )
    )


def _output(run: Run) -> str:
    """The output of the last task of the plan that completed."""
    done = [name for name, task in run.tasks.items() if task.phase == "completed"]
    return run.views[done[-1]].output if done else ""


def _cancel(turn: Turn) -> None:
    """Start nothing new, ask everything open to end, and end when it has."""
    if turn.run.phase == "ended":
        return
    advance(turn)
    for intent_id, intent in turn.run.intents.items():
        if not (intent.asked_to_end or turn.run.stale(intent_id)):
            turn.emit(_end_of(intent_id, intent, turn.run.reason))
    if turn.run.busy:
        for task in turn.run.tasks.values():
            if task.phase in ("droning", "overdue"):
                interrupt(turn, task, turn.run.reason)
    run = turn.run
    if run.intents or run.busy or run.awaits_plan:
        return
    for task in run.tasks.values():
        if not task.ended:
            turn.emit(TaskCancelled(task_id=task.id, reason=run.reason))
    turn.emit(WorkflowCancelled(reason=run.reason))


def _end_of(intent_id: str, intent: OpenIntent, reason: str) -> Event:
    match intent.kind:
        case "task":
            return TaskCancelRequested(task_id=intent.task_id, intent_id=intent_id, reason=reason)
        case "tool":
            return ToolCancelRequested(intent_id=intent_id, reason=reason)
        case "timer":
            return TimerCancelRequested(intent_id=intent_id, reason=reason)
        case _:
            return ApprovalCancelRequested(intent_id=intent_id, reason=reason)
