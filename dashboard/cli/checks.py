"""validate, audit, redrive: is the file right, is the log right, would today's code decide the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED, USAGE
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, cut, plural
from hive_errors import UsageWrong, WorkflowFileError

if TYPE_CHECKING:
    from hive_bus.replay import Difference


@command("validate", examples=("validate ci.yaml", "validate flows/*.yaml --json"))
def validate(
    shell: Shell,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflow files.")],
) -> int | None:
    """Check workflow files, and list every problem.

    Each with its line, field, value, reason and, where there is one, a suggestion.
    """
    from agents.tools import builtin_tools
    from agents.workflow_file import load_workflow

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


@command("redrive", examples=("redrive @", "redrive --all", "redrive tests/golden/histories/demo-0.1.0.jsonl"))
async def redrive(
    shell: Shell,
    what: Annotated[
        str | None, typer.Argument(metavar="RUN|FILE", help="A run, or a history that was exported as JSON Lines.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run of the log.")] = False,
) -> int | None:
    """Decide a run again with today's code, and report what differs.

    No model is called and nothing is changed. Silent and 0 when all decisions are the same, else 1.
    """
    from dashboard.cli.redriving import differences_of_file, differences_of_runs

    if every == (what is not None):
        raise UsageWrong(
            name="RUN|FILE", value=str(what), reason="name one, or --all", remedy="`hive redrive @` for the last run"
        )
    found = 0
    if what is not None and what.endswith(".jsonl"):
        source = differences_of_file(Path(what))
    else:
        source = differences_of_runs(shell, what)
    async for run_id, difference in source:
        found += 1
        if shell.json:
            shell.emit(asdict(difference) | {"run": run_id, "other_version": difference.other_version})
        else:
            shell.print(*_told(run_id, difference, width=shell.width))
    if found and not shell.json:
        shell.say(f"{plural(found, 'decision')} would be different today")
    return FAILED if found else None


def _told(run_id: str, difference: Difference, *, width: int) -> list[Line | str]:
    """Where a decision differs: events that are gone, are new, or have other fields."""
    by = f", recorded by {difference.recorded_by}" if difference.other_version else ""
    brain = difference.brain.partition("@")[0]
    lines: list[Line | str] = [
        [
            (f"run {run_id} position {difference.position} ", "bold"),
            (f"{difference.topic}: the {brain} decides otherwise{by}", "yellow"),
        ]
    ]
    if difference.error:
        return [*lines, [(f"  today: {difference.error}", "red")]]
    recorded, today = list(difference.recorded), list(difference.today)
    for one in difference.recorded:
        if one in today:
            recorded.remove(one)
            today.remove(one)
    for stream, topic, payload in recorded:
        other = next((one for one in today if one[:2] == (stream, topic)), None)
        if other is None:
            lines.append([("  - ", "red"), (cut(f"{topic} in {stream} {payload}", width - 4), "")])
            continue
        today.remove(other)
        lines.append([("  ~ ", "yellow"), (f"{topic} in {stream}", "")])
        lines += _fields(json.loads(payload), json.loads(other[2]), width=width)
    lines += [
        [("  + ", "green"), (cut(f"{topic} in {stream} {payload}", width - 4), "")] for stream, topic, payload in today
    ]
    return lines


def _fields(recorded: dict[str, Any], today: dict[str, Any], *, width: int) -> list[Line | str]:
    lines: list[Line | str] = []
    for key in [*recorded, *(key for key in today if key not in recorded)]:
        before, after = (json.dumps(one.get(key), ensure_ascii=False) for one in (recorded, today))
        if before != after:
            lines.append([("    - ", "red"), (cut(f"{key}: {before}", width - 6), "")])
            lines.append([("    + ", "green"), (cut(f"{key}: {after}", width - 6), "")])
    return lines
