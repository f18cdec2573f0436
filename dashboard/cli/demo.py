"""demo: a hive at work on a small repository, from a goal to a reviewed result, in seconds and without a key."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.running import Outcome, host
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line
from hive_errors import FileUnusable

_AUTHOR = "The demo"


@command("demo", examples=("demo", "demo --model claude-sonnet-5-5", "demo --dir /tmp/jars --db /tmp/demo.db"))
async def demo(
    shell: Shell,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Let a real model do it, such as claude-sonnet-5-5 [a script]."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where the repository is made [./.hive/demo-RUN].")
    ] = None,
    broken: Annotated[
        bool, typer.Option("--break", help="Plant another mistake, which the script does not mend: the run must fail.")
    ] = False,
) -> int:
    """Watch a hive fix a small repository; it needs no key.

    It plans, works, reviews, reworks and merges; then its trace, cost and diff are shown. The model's words come from a script, so no key is needed; files are really edited, tests really run, and
    the reviewer really refuses once. Nothing outside ./.hive is touched.
    """
    from agents.hive import Hive
    from hive_bus import tune_process
    from hive_bus.ids import Ids

    tune_process()
    url = shell.url(make=True)
    run_id = Ids().run_id()
    place = (directory or Path(".hive") / f"demo-{run_id}").resolve()
    goal = make_repository(place, broken=broken)
    chosen = model or f"scripted:{write_answers(place.with_name(place.name + '.yaml'))}"
    hive = Hive(url, workspace=place, model=chosen)
    shell.say(f"the repository: {shown(place)}", f"the goal: {goal}", "")
    outcome = await host(shell, hive, lambda: hive.start(goal, id=run_id, metadata={"demo": True}), approve="all")
    await _report(shell, outcome, place, run_id)
    return outcome.exit_code


def make_repository(place: Path, *, broken: bool = False) -> str:
    """Make the demo's repository with one commit, and return its goal. Raises :class:`FileUnusable`."""
    if place.exists() and any(place.iterdir()):
        raise FileUnusable(path=str(place), reason="the directory is not empty", remedy="name a new one with --dir")
    content = _data("repository.yaml")
    files = content["files"] | (content["broken"] if broken else {})
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PYTHON", shlex.quote(sys.executable)), encoding="utf-8")
    (place / "check").chmod(0o755)
    git(place, "init", "-q", "-b", "main", "--template=")
    git(place, "config", "user.name", _AUTHOR)
    git(place, "config", "user.email", "demo@localhost")
    git(place, "add", "--all")
    git(place, "commit", "-q", "-m", "Jars, and a test that fails")
    return str(content["goal"])


def write_answers(path: Path) -> Path:
    """Write the model's answers beside the repository, where any process that goes on with the run finds them."""
    path.write_text(json.dumps(_data("answers.yaml"), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def git(place: Path, *arguments: str) -> str:
    """Run git in the demo's repository, without the user's configuration, hooks or signing."""
    nowhere = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=place, env=clean | nowhere, capture_output=True, text=True, check=True, timeout=60
        )
    except FileNotFoundError:
        raise FileUnusable(
            path="git", reason="it is not installed", remedy="install git; the demo works in worktrees"
        ) from None
    except subprocess.CalledProcessError as problem:
        raise FileUnusable(path=str(place), reason=problem.stderr.strip(), remedy="run `hive doctor`") from problem
    return done.stdout


def shown(path: Path) -> str:
    """A path as short as it can be pasted here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


async def _report(shell: Shell, outcome: Outcome, place: Path, run_id: str) -> None:
    from dashboard.cli.running import report
    from dashboard.cli.tree import tree
    from dashboard.views import trace_view

    view = outcome.view
    if view is None or outcome.interrupted or not view.ended:
        if view is not None:
            report(shell, view, resume=outcome.interrupted)
        return
    base = view.base or "HEAD"
    changes = git(place, "diff", base, view.commit or "HEAD")
    if shell.json:
        shell.emit(view.as_dict() | {"repository": str(place), "diff": changes})
        return
    async with shell.bus() as bus:
        trace = trace_view(await bus.history(run_id))
    assert trace is not None
    shell.print("", *tree(trace, width=shell.width))
    if changes:
        shell.print("", [("what changed", "bold")], *coloured(changes))
    shell.print("", [("next", "bold")], *(f"  {line}" for line in _next(shell, place, run_id)))


def coloured(diff: str) -> list[Line]:
    """A diff with its usual colours."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    heads = ("+++", "---", "diff ", "index ", "new file", "deleted file")
    return [[(line, "bold" if line.startswith(heads) else styles.get(line[:1], ""))] for line in diff.splitlines()]


def _next(shell: Shell, place: Path, run_id: str) -> list[str]:
    repository = shlex.quote(shown(place))
    return [
        shell.command("trace", run_id, "--as", "timeline"),
        shell.command("events", "--correlation", run_id),
        shell.command("redrive", run_id),
        f"git -C {repository} log --oneline",
        f"(cd {repository} && ./check)",
    ]


def _data(name: str) -> Any:
    from ruamel.yaml import YAML

    text = resources.files("dashboard.demo").joinpath(name).read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)
