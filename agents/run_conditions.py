"""What becomes of a task whose needs have all ended: skipped, failed, asked about, or queued.

Owns the meaning of ``when``, of approvals and of repairs. Pure, and a part of
the queen's fold, so that a verdict is a fact of the state and not judged twice.
"""

from __future__ import annotations

from agents.run_state import Phase, Run, Task, changed
from agents.workflows.expressions import evaluate
from hive_errors import ExpressionError

__all__ = ["opened", "question_id"]


def question_id(task: Task, *, unknown: bool = False) -> str:
    """The approval that a try needs: before it starts, or after it may have run."""
    return f"{task.id}.{task.try_number}.unknown" if unknown else f"{task.id}.{task.try_number}"


def opened(run: Run, task: Task) -> Run:
    """The run after all needs of ``task`` have ended."""
    phase, reason = _verdict(run, task)
    in_integration = any(_in_integration(run.tasks[name]) for name in (*task.needs, *task.after))
    return run.put(changed(task, phase=phase, reason=reason, waits=0, in_integration=in_integration))


def _in_integration(before: Task) -> bool:
    return before.in_integration or before.kind == "prompt"


def _verdict(run: Run, task: Task) -> tuple[Phase, str]:
    when = task.spec.get("when")
    # A step whose repair has completed counts as succeeded for whoever comes after.
    bad = [need for need in task.needs if run.tasks[need].phase != "completed" and not run.repaired(need)]
    if when is None:
        if bad:
            return "skip", f"needs {bad[0]}, which {_was(run.tasks[bad[0]])}"
        return _approval(run, task)
    ancestors = [name for name in run.ancestors(task) if not run.repaired(name)] if "failed" in when else ()
    needs = [need for need in task.needs if not run.repaired(need)]
    try:
        holds = evaluate(when, run.views, needs=needs, ancestors=ancestors)
    except ExpressionError as error:
        return "broken", error.message
    return _approval(run, task) if holds else ("skip", f"the condition does not hold: {when}")


def _was(task: Task) -> str:
    return "failed" if task.phase == "failed" else f"was {task.phase}"


def _approval(run: Run, task: Task) -> tuple[Phase, str]:
    if not task.spec.get("approval") or run.approve == "all":
        return "queued", ""
    if run.approve == "none":
        return "broken", "it needs an approval, and the run was started without any"
    match run.answers.get(question_id(task)):
        case True:
            return "queued", ""
        case False:
            return "broken", "approval denied"
        case _:
            return "ask", ""
