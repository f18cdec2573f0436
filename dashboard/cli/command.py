"""How commands are made: the options that all have, coroutines, errors as two lines, exit codes.

``@command("runs", ...)`` turns a function ``(shell, ...) -> exit code or None`` into a command of ``app``.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final, get_type_hints

import typer

from dashboard.cli.exits import COMPLETED, INTERRUPTED, exit_code_of
from dashboard.cli.shell import Shell
from hive_errors import HiveError

app = typer.Typer(
    name="hive",
    help=(
        "Give a hive a goal or a workflow; it plans, works, reviews, and keeps every step in one log.\n\n"
        "Start with `hive demo`. A RUN is named by its id, by four or more of its first letters, or by @ for the last."
    ),
    epilog=(
        "\b\nExit codes: 0 completed, 1 failed or different, 2 usage or a bad file, 3 waiting for a person,\n"
        "            4 not found, 130 interrupted.\n"
        "Database:   --db URL, else HIVE_DB, else db: of the nearest hive.yaml, else ./.hive/hive.db"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

_COMMON: Final[dict[str, Any]] = {
    "db": Annotated[
        str | None,
        typer.Option("--db", metavar="URL", help="The database: a file's path, sqlite:///PATH or postgresql://..."),
    ],
    "json": Annotated[bool, typer.Option("--json", help="Data as JSON; lists as JSON Lines.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what happens inside.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
_DEFAULTS: Final[dict[str, Any]] = {"db": None, "json": False, "verbose": False, "debug": False}


def command(name: str, *, examples: tuple[str, ...] = (), hidden: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Make a command of a function, sync or async, whose first parameter is the :class:`Shell`.

    ``examples`` are shown below the help, each a command line without ``hive``. The function returns an exit
    code or None for 0.
    """

    def made(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            shell = Shell(**{key: given.pop(key) for key in _COMMON})
            raise typer.Exit(_run(function, shell, given))

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=hint)
            for key, hint in _COMMON.items()
        ]
        run.__annotations__ = {own.name: hints[own.name] for own in own} | _COMMON
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
                for parameter in own
            ]
            + common
        )
        del run.__wrapped__
        epilog = "\b\nExamples:\n" + "\n".join(f"  hive {line}" for line in examples) if examples else None
        app.command(name, epilog=epilog, hidden=hidden)(run)
        return function

    return made


def _run(function: Callable[..., Any], shell: Shell, given: dict[str, Any]) -> int:
    try:
        from dashboard.cli.log import follow_log

        follow_log(verbose=shell.verbose, db=shell.db)
        outcome = function(shell, **given)
        if inspect.iscoroutine(outcome):
            import asyncio

            outcome = asyncio.run(outcome)
    except HiveError as error:
        return _failed(shell, error, error.message, error.advice)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has what they wanted; the interpreter must not complain at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return COMPLETED
    except Exception as error:  # noqa: BLE001 - a defect of ours is told like every error, with the way to its traceback
        message = f"{type(error).__name__}: {error} (this is a defect of the hive)"
        return _failed(shell, error, message, "the same command with --debug shows where; please report it")
    return int(outcome or 0)


def _failed(shell: Shell, error: Exception, message: str, advice: str) -> int:
    """One line, and what to try; with ``--debug`` the traceback before it."""
    if shell.debug:
        import traceback

        traceback.print_exception(error)
    shell.say([("error: ", "bold red"), (message, "")])
    if advice:
        shell.say([("try: ", "bold"), (advice, "")])
    return exit_code_of(error)
