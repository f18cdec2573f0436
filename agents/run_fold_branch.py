"""How a run goes on as a branch: under which terms, and what of its parent has to be asked again.

A part of the queen's ``evolve``. Whatever waited for the parent steps back to the phase before it asked, so that
the queen asks again by the same rules as ever. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agents.run_state import Fold, OpenIntent, Phase, Run, Task, changed
from hive_bus.brains.brain import Input
from hive_bus.event import Event
from hive_bus.events import drone, workflow

__all__ = ["BRANCH_STEPS", "UNSAFE", "inherit"]

UNSAFE: Final = (
    "it is not safe to do twice, and this run is a branch of one that may have done it (hive fork --allow unsafe)"
)
_FLYING: Final = frozenset({"droning", "overdue", "stopping"})


def inherit(run: Run, forked: workflow.WorkflowForked, branch: str) -> Run:
    """The run as a branch begins: another id, other terms; every open intent is the parent's."""
    terms = run.terms.under(forked)
    return changed(
        run,
        id=branch,
        terms=terms,
        max_parallel=terms.max_parallel or run.max_parallel,
        approve=terms.approve or run.approve,
        review=run.review if terms.review is None else terms.review,
    )


def _forked(run: Run, event: workflow.WorkflowForked, _record: Input) -> Run:
    """All that was inherited is known: what waits for the parent steps back, and drones are to go on."""
    if not run.terms.branch:
        return run
    flying = [task for task in run.tasks.values() if task.phase in _FLYING and task.hatched_in != run.id]
    run = changed(run, answers={}, waking={task.id: None for task in flying})
    for key in [key for key in run.intents if run.stale(key)]:
        intent = run.intents[key]
        run = _stepped_back(run.closed(key), key, intent, intent.left(event.at))
    for task in run.tasks.values():
        if task.phase == "queued" and task.spec.get("approval"):
            run = run.put(changed(task, **_question(run)))
    return run


def _stepped_back(run: Run, key: str, intent: OpenIntent, left: float) -> Run:
    """The run without an intent of its parent, as it was before that was asked."""
    if intent.what == "workspace.finish":
        return changed(run, phase="running")
    task = run.tasks[intent.task_id]
    if intent.kind == "timer" and task.timer != key:
        return run
    match intent.kind, task.phase:
        case "task", "ready":
            return run.put(changed(task, phase="again", delay=left))
        case "timer", "resting":
            return run.put(changed(task, phase="again", timer="", delay=left))
        case "timer", _:
            timed = task.id in run.waking and not intent.asked_to_end
            waking = {**run.waking, task.id: left} if timed else run.waking
            return run.put(changed(task, timer=""), waking=waking)
        case "approval", "asking":
            return run.put(changed(task, **_question(run)))
        case "approval", "doubtful":
            return run.put(changed(task, phase="returned"))
        case "tool", "inspecting":
            return run.put(changed(task, phase="inspect"))
        case "tool", "merging":
            return run.put(changed(task, phase=_before_merge(task)), merging=False)
        case _:
            return run


def _before_merge(task: Task) -> Phase:
    return "judged" if task.verdict == "approved" else "inspect"


def _question(run: Run) -> dict[str, Any]:
    """The phase of a task that needs an approval: people are asked anew unless the branch says otherwise."""
    if run.approve == "all":
        return {"phase": "queued"}
    if run.approve == "none":
        return {"phase": "broken", "reason": "it needs an approval, and the run was started without any"}
    return {"phase": "ask"}


def _drone_resumed(run: Run, event: drone.DroneResumed, _record: Input) -> Run:
    task = event.drone_id.rpartition(".")[0]
    return changed(run, waking={name: left for name, left in run.waking.items() if name != task})


BRANCH_STEPS: Final[Mapping[type[Event], Fold]] = {
    workflow.WorkflowForked: _forked,
    drone.DroneResumed: _drone_resumed,
}
