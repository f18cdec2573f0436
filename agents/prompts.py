"""What planner, reviewer and drones are told: prompt texts, and how facts are put into them.

Owns the wording. Pure functions of what the log holds: the rendered text is part of
the intent, so a change here changes only what is asked from now on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agents.run_state import Task

__all__ = [
    "BLOCKED",
    "CONFLICT",
    "GO_ON",
    "NO_SUCH_TOOL",
    "PLANNER_SYSTEM",
    "REVIEWER_SYSTEM",
    "UNKNOWN_OUTCOME",
    "drone_prompt",
    "drone_system",
    "planner_prompt",
    "review_again",
    "review_prompt",
]

LONGEST_EVIDENCE = 60_000

CONFLICT = (
    "Your change was approved, but it conflicts with changes that were merged meanwhile, in: {files}. You start again "
    "from the merged state. Make your change once more so that it fits what is there now."
)
BLOCKED = (
    "{tool!r} is blocked: this run is a branch of an earlier one, and what it does is not safe to do twice. "
    "Go on without it."
)
NO_SUCH_TOOL = "There is no tool {tool!r}. The tools are: {known}."
GO_ON = "Your answer was cut off. Go on exactly where it stopped."
UNKNOWN_OUTCOME = "The outcome is unknown: it may have run, in part or in full. Look before you do it again."

_DRONE = """\
You are a drone of a hive: a software engineer who does one task and nothing else.
Work with your tools; look before you change, and check what you did.{where}
When you are done, answer with a short account of what you changed and how you know that it works, and use no tool.
If the task cannot be done, say so and say why."""
_WHERE = """
Your tools work in a workspace of your own. Paths are relative to its top. Nothing outside it exists for you."""

PLANNER_SYSTEM = """\
You are the planner of a hive. You turn a goal into a small graph of steps.
Answer with one JSON object and nothing else: {"steps": [...]}. A step has
- "id": letters, digits, _ and -, unique;
- one of "prompt" (a task for a drone, which reads and edits files and runs commands in a git worktree of its own),
  "run" (a shell command, run in the merged result of the steps before it), or "tool" with "with" (its arguments);
- "needs": the ids of the steps that must have ended before it (leave it out for none);
- if useful: "name", "when" (a condition: "failed('test')", "always()"; the default is that all needs succeeded),
  "retries", "timeout" (such as "10m"), "review" (how many reviewers must approve), "tools" (names a drone may use).
Text of a step may hold {{ steps.ID.output }} for a step among its needs, or the needs of those.
Make as few steps as the goal needs. A prompt says everything its drone must know: drones see no other drone's talk.
Steps that change the same files should need each other, or their changes will conflict."""

REVIEWER_SYSTEM = """\
You are a reviewer of a hive. You judge whether the result of a task does what was asked, and is right.
Answer with one JSON object and nothing else: {"verdict": "...", "comments": ["...", ...]}. The verdict is
- "approved": it does what was asked, and you would put your name to it;
- "changes_requested": it can be made right; each comment says one thing to do;
- "rejected": it should not be done at all, or not like this; say why."""


def drone_system(goal: str, *, in_workspace: bool) -> str:
    """The system prompt of a drone."""
    system = _DRONE.format(where=_WHERE if in_workspace else "")
    return f"{system}\n\nYour task is part of this goal: {goal}" if goal else system


def drone_prompt(task: Task, prompt: str) -> str:
    """What a drone is asked to do; for a later try with what was said about the one before."""
    if not task.comments:
        return prompt
    said = "\n".join(f"- {comment}" for comment in task.comments)
    parts = [prompt, f"This is try {task.try_number}. Of the one before it was said:\n{said}"]
    if task.base:
        parts.append("Your earlier changes are in the workspace: build on them.")
    elif task.diff:
        parts.append(f"Your earlier changes are not in the workspace. They were:\n{_shortened(task.diff)}")
    return "\n\n".join(parts)


def planner_prompt(
    goal: str, *, workspace: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], reasons: Sequence[str] = ()
) -> str:
    """What the planner is asked."""
    if reasons:
        said = "\n".join(f"- {reason}" for reason in reasons)
        return f"Your plan was refused:\n{said}\n\nAnswer with a plan that mends this, as JSON alone."
    parts = [f"The goal: {goal}"]
    facts = {key: value for key, value in workspace.items() if key not in ("path", "base") and value}
    if workspace.get("base"):
        parts.append("Drones work in git worktrees; their changes are reviewed and merged.")
    elif workspace.get("path"):
        parts.append("The workspace is a directory without git.")
    if facts:
        parts.append(f"Of the workspace is known:\n{json.dumps(facts, ensure_ascii=False, indent=1)}")
    if tools:
        named = "\n".join(f"- {tool.get('name')}: {tool.get('description', '')}" for tool in tools)
        parts.append(f"A drone's tools:\n{named}")
    return "\n\n".join(parts)


def review_prompt(*, instructions: str, output: str, evidence: Mapping[str, Any]) -> str:
    """What the reviewer is shown."""
    parts = [f"The task was:\n{instructions}", f"The drone says:\n{output or '(nothing)'}"]
    for name, value in evidence.items():
        if value is None or value in ("", {}):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        parts.append(f"{name}:\n{_shortened(text)}")
    if "diff" in evidence and not evidence["diff"]:
        parts.append("diff:\n(nothing was changed)")
    return "\n\n".join(parts)


def review_again(reason: str) -> str:
    """What a reviewer is told whose answer is no verdict."""
    return f"That is no verdict: {reason}. Answer with the JSON object alone."


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_EVIDENCE:
        return text
    half = LONGEST_EVIDENCE // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"
