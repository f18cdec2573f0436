"""what-if: a run decided again on other terms, answered from the log as far as that goes, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.answers import RunName
from dashboard.cli.command import command
from dashboard.cli.forking import PromptFiles, Settings, otherwise_of
from dashboard.cli.running import ScriptFile, model_name
from dashboard.cli.shell import Shell
from dashboard.cli.text import plural

if TYPE_CHECKING:
    from agents.what_if import WhatIf


@command(
    "what-if",
    examples=(
        "what-if @ --prompt-file reviewer=strict.txt",
        "what-if 7k3m --set model.reviewer=claude-haiku-5-5 --live",
        "what-if @ --prompt-file drone=terse.txt --script answers.yaml",
    ),
)
async def what_if(
    shell: Shell,
    *,
    run: RunName = "@",
    settings: Settings = None,
    prompt_files: PromptFiles = None,
    script: ScriptFile = None,
    live: Annotated[
        bool, typer.Option("--live", help="Call models and tools for what the log cannot answer, and go on.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Effects that are alike, too.")] = False,
) -> int:
    """Decide a run again on other terms, and compare.

    Calls that are asked as they were are answered from the log, at no cost. The first that is not ends it, unless --live calls models and tools, or --script answers for the models. It happens in a log of its own that is thrown away: the run, its branch and your files stay as they are, but for the commands of a workflow without git.
    The exit code is 1 where anything differs.
    """
    from agents.tools import builtin_tools
    from agents.what_if import what_if as decide_again
    from dashboard.cli.diff import lines
    from dashboard.views import compare

    otherwise = otherwise_of(settings or [], prompt_files=prompt_files or [])
    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        history = await bus.history(run_id)
        answers = None if script is None else model_name(None, script)
        found = await decide_again(bus, run_id, otherwise=otherwise, tools=builtin_tools(), live=live, answers=answers)
    comparison = compare(run_id, history, run_id, found.records)
    if shell.json:
        counts = {"answered": found.answered, "new": len(found.new), "ended": found.ended}
        shell.emit(comparison.as_dict() | {"what_if": counts})
    else:
        shell.print(*lines(comparison, width=shell.width, everything=everything))
        shell.say(*_told(found, live=live or answers is not None))
    return 0 if comparison.empty else 1


def _told(found: WhatIf, *, live: bool) -> list[str]:
    said = [f"{plural(found.answered, 'effect')} answered from the log, {len(found.new)} new"]
    if found.ended or not found.new:
        return said
    questions = [str(one.data["task_id"]) for one in found.new if one.topic == "approval.requested"]
    if live and questions:
        said.append(
            f"stopped where {', '.join(questions)} waits for an approval that nobody had given: nobody is asked here"
        )
        return said
    first = found.new[0]
    what = first.data.get("role") or first.data.get("tool") or first.data.get("task_id")
    said.append(f"stopped at the first new one, {first.topic} of {what}: --live or --script FILE goes on")
    return said
