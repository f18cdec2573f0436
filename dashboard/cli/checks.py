"""validate, audit, redrive: is the file right, is the log right, would today's code decide the same."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED, USAGE
from dashboard.cli.shell import Shell
from dashboard.cli.text import plural
from hive_errors import UsageWrong, WorkflowFileError


@command("validate", examples=("validate ci.yaml", "validate flows/*.yaml --json"))
def validate(
    shell: Shell,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflow files.")],
) -> int | None:
    """Check workflow files, and list every problem.

    Each with its line, field, value, reason and, where there is one, a suggestion.
    """
    from agents.tools import builtin_tools
    from agents.workflows.file import load_workflow

    tools = [tool.spec.name for tool in builtin_tools()]
    wrong = False
    for file in files:
        try:
            workflow = load_workflow(file, tools=tools)
        except WorkflowFileError as error:
            wrong = True
            if shell.json:
                shell.emit_all(asdict(problem) | {"field": problem.field, "valid": False} for problem in error.problems)
            else:
                shell.print(*(str(problem) for problem in error.problems))
            continue
        if shell.json:
            shell.emit({"file": str(file), "valid": True, "name": workflow.name, "steps": len(workflow.steps)})
        else:
            shell.print([("✓ ", "green"), (f"{file}: {plural(len(workflow.steps), 'step')}", "")])
    return USAGE if wrong else None


@command("audit", examples=("audit", "audit --json"))
def audit(shell: Shell) -> int | None:
    """Check every invariant of the database.

    Log, work queue, checkpoints, leases and views, with plain SQL on one snapshot, by code that shares nothing
    with what wrote them; and where `nats:` is set the mirror, byte for byte.
    """
    from dashboard.cli.mirror import audited
    from dashboard.cli.vocabulary import queued, words
    from hive_core_db.audit import Vocabulary
    from hive_core_db.audit import audit as findings_of

    found = 0
    database = findings_of(shell.url(), vocabulary=Vocabulary(**words(), queued=queued))
    for finding in chain(database, audited(shell)):
        found += 1
        if shell.json:
            shell.emit(asdict(finding))
        else:
            shell.print([("✗ ", "bold red"), (str(finding), "")])
    if found:
        shell.say(f"{plural(found, 'finding')} in {shell.place}")
        return FAILED
    if not shell.json:
        shell.print([("✓ ", "green"), (f"{shell.place}: every invariant holds", "")])
    return None


@command(
    "redrive",
    examples=(
        "redrive @",
        "redrive 7k3m x9ab --all-differences",
        "redrive --all --json",
        "redrive tests/golden/histories/demo-0.1.0.jsonl",
    ),
)
async def redrive(
    shell: Shell,
    what: Annotated[
        list[str] | None, typer.Argument(metavar="RUN|FILE...", help="Runs, or histories that were exported (.jsonl).")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run of the log.")] = False,
    each: Annotated[
        bool, typer.Option("--all-differences", help="Every difference of a run, not the first alone.")
    ] = False,
) -> int | None:
    """Decide a run again with today's code, and report what differs.

    No model is called and nothing is changed. Silent and 0 when all decisions are the same, else 1: what was decided
    then, what is decided now, and what the event had changed in the state that it was decided from.
    """
    from dashboard.cli.differences import as_dict, told
    from dashboard.cli.redriving import differences

    if every == bool(what):
        raise UsageWrong(
            name="RUN|FILE",
            value=" ".join(what or ()),
            reason="name one or more, or --all",
            remedy="`hive redrive @` for the last run",
        )
    found = 0
    async for run_id, difference in differences(shell, what, each=each):
        found += 1
        if shell.json:
            shell.emit(as_dict(difference) | {"run": run_id})
        else:
            shell.print(*told(run_id, difference, width=shell.width))
    if found and not shell.json:
        shell.say(
            f"{plural(found, 'decision')} would be different today" + ("" if each else "; --all-differences shows all")
        )
    return FAILED if found else None
