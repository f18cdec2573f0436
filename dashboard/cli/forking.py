"""fork: a branch of a run, that shares its past up to a moment and goes on otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dashboard.cli.answers import By, RunName, login
from dashboard.cli.command import command
from dashboard.cli.exits import COMPLETED
from dashboard.cli.running import ScriptFile, Workspace, detached, host, model_name, one_of, report
from dashboard.cli.shell import Shell
from hive_errors import FileUnusable, UsageWrong

if TYPE_CHECKING:
    from agents.forking import Otherwise

ROLES: Final = ("planner", "reviewer", "drone")
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="model, model.planner, model.reviewer, model.drone, max_parallel or review; may be repeated.",
    ),
]
PromptFiles = Annotated[
    list[str] | None,
    typer.Option("--prompt-file", metavar="ROLE=FILE", help="Another system prompt for planner, reviewer or drone."),
]


@command(
    "fork",
    examples=(
        "fork @ --at @40",
        "fork 7k3m --at before-refactor --set model=claude-opus-5-5",
        "fork @ --at 812 --script other.yaml --approve all",
        "fork @ --at 812 --edit 640=reply.json",
        "fork @ --at @40 --detach    # a `hive up` does it",
    ),
)
async def fork(
    shell: Shell,
    *,
    run: RunName,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="P", help="Where: 812, @12, 14:03, or a label; the run's last event."),
    ] = None,
    settings: Settings = None,
    script: ScriptFile = None,
    prompt_files: PromptFiles = None,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--edit", metavar="EVENT=FILE", help="Give an inherited event (position or id) the body of a JSON file."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="unsafe", help="Let tools run that are not safe to do twice.")
    ] = None,
    approve: Annotated[
        str | None,
        typer.Option("--approve", metavar="ask|all|none", help="Who answers approvals from there on [as before]."),
    ] = None,
    branch: Annotated[str | None, typer.Option("--id", metavar="ID", help="Name the branch.")] = None,
    workspace: Workspace = Path(),
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Only make it: a `hive up` does the work.")] = False,
    by: By = None,
) -> int:
    """Go on from a moment of a run in a branch, and show it.

    The branch shares the run's past; nothing is copied, and the run itself goes on as if nothing had happened. What was open at that moment is asked again. Tools that are not safe to do twice are blocked, and people are asked anew, unless you allow it. In git, work goes on from the commits of that moment.
    """
    from agents.hive import Hive
    from hive_bus import tune_process

    tune_process()
    otherwise = otherwise_of(
        settings or [],
        script=script,
        prompt_files=prompt_files or [],
        edits=edits or [],
        allow=allow or [],
        approve=approve,
    )
    hive = Hive(
        shell.url(),
        workspace=workspace,
        serve=not detach,
        health_seconds=shell.settings.health_seconds,
        limits=shell.settings.limits,
    )
    wishes: dict[str, Any] = {"at": at, "otherwise": otherwise, "id": branch, "by": by or login()}
    if detach:
        async with hive:
            detached(shell, await hive.fork(run, **wishes))
            return COMPLETED
    outcome = await host(
        shell, hive, lambda: hive.fork(run, **wishes), approve=one_of("--approve", approve or "ask", *_ANSWERS)
    )
    if outcome.view is not None:
        report(shell, outcome.view, resume=outcome.interrupted)
    return outcome.exit_code


_ANSWERS: Final = ("ask", "all", "none")


def otherwise_of(
    settings: Sequence[str],
    *,
    script: Path | None = None,
    prompt_files: Sequence[str] = (),
    edits: Sequence[str] = (),
    allow: Sequence[str] = (),
    approve: str | None = None,
) -> Otherwise:
    """What the options say a branch does otherwise. Raises :class:`UsageWrong`, :class:`FileUnusable`."""
    from agents.forking import Otherwise

    changes: dict[str, Any] = {"models": {}}
    for key, value in _pairs("--set", settings):
        _set(changes, key, value)
    if script is not None:
        changes["models"][""] = model_name(None, script)
    prompts = {}
    for role, file in _pairs("--prompt-file", prompt_files):
        one_of("--prompt-file", role, *ROLES)
        prompts[role] = _text(Path(file))
    for word in allow:
        one_of("--allow", word, "unsafe")
    return Otherwise(
        **changes,
        prompts=prompts,
        edits={event: _body(Path(file)) for event, file in _pairs("--edit", edits)},
        unsafe="unsafe" in allow,
        approve=None if approve is None else one_of("--approve", approve, *_ANSWERS),
    )


def _set(changes: dict[str, Any], key: str, value: str) -> None:
    word, _, role = key.partition(".")
    if word == "model" and (not role or role in ROLES):
        changes["models"][role] = model_name(value, None)
    elif key == "max_parallel" and value.isdecimal() and int(value):
        changes[key] = int(value)
    elif key == "review" and value in ("true", "false"):
        changes[key] = value == "true"
    else:
        known = ("model=NAME", *(f"model.{one}=NAME" for one in ROLES), "max_parallel=N", "review=true|false")
        raise UsageWrong(
            name="--set", value=f"{key}={value}", reason="that is nothing to set", remedy=f"one of: {', '.join(known)}"
        )


def _pairs(option: str, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    for pair in given:
        key, separator, value = pair.partition("=")
        if not (separator and key and value):
            raise UsageWrong(name=option, value=pair, reason="it is no pair", remedy=f"write {option} KEY=VALUE")
        yield key, value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise FileUnusable(path=str(path), reason=f"it cannot be read: {problem}", remedy="name a text file") from None


def _body(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(_text(path))
    except ValueError as problem:
        raise FileUnusable(
            path=str(path), reason=f"it is no JSON: {problem}", remedy="write the event's body"
        ) from None
    if not isinstance(body, dict):
        raise FileUnusable(path=str(path), reason="it is no JSON object", remedy="write the event's body")
    return body
