"""budget: what a run, or the whole hive, may use and has used; and how a person raises it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dashboard.cli.answers import By, login
from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, Line, columns
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from hive_bus import Bus
    from hive_bus.budget import Budget, Ledger
    from hive_bus.hands.budgets import Account

_SOME: Final = {"usd": "1", "tokens": "100k", "calls": "20", "time": "10m"}


@command(
    "budget",
    examples=("budget @", "budget 7k3m --add usd=1,calls=20", "budget @ --set tokens=none", "budget --add usd=5"),
)
async def budget(
    shell: Shell,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run; without it, the hive's of now.")] = None,
    add: Annotated[
        str | None,
        typer.Option("--add", metavar="KIND=AMOUNT,...", help="Raise it: usd=1,calls=50,tokens=200k,time=10m."),
    ] = None,
    change: Annotated[
        str | None, typer.Option("--set", metavar="KIND=AMOUNT,...", help="Set it; `none` takes a limit away.")
    ] = None,
    by: By = None,
) -> None:
    """Show or raise what a run, or the whole hive, may use.

    A run that paused because its next call may need more than is left goes on by itself once that is enough.
    """
    from hive_bus.budget import parse_budget
    from hive_bus.hands.budgets import set_budget

    more, without_more = parse_budget(add) if add is not None else (None, ())
    other, without = parse_budget(change) if change is not None else (None, ())
    if without_more:
        remedy = "take a limit away with --set"
        raise UsageWrong(name="--add", value=str(add), reason="`none` adds nothing", remedy=remedy)
    async with shell.bus() as bus:
        account = await _account(shell, bus, run)
        if more is not None:
            _check(account, more)
        if more is not None or change is not None:
            await set_budget(bus, account, add=more, change=other, without=without, by=by or login())
    ledger = account.ledger.as_dict(account.limits)
    if shell.json:
        shell.emit({"run": account.run or None, "stream": account.stream} | ledger)
    elif not ledger["limits"]:
        shell.say(
            f"the {account.whose} has no budget", f"try: {shell.command('budget', account.run, '--set', 'usd=2')}"
        )
    else:
        shell.print(*_table(ledger, shell.width))
    if account.ledger.exceeded and not shell.json:
        shell.say(f"paused: {account.ledger.exceeded}", f"try: {how_to_raise(shell, account.run, account.ledger)}")


def how_to_raise(shell: Shell, run: str, ledger: Ledger | None) -> str:
    """The command that gives a paused run more of what it lacks; of the hive where that is what has no more."""
    lacks = "usd" if ledger is None or not ledger.lacks else ledger.lacks
    own = ledger is not None and ledger.exceeded.startswith("the run")
    return shell.command("budget", *([run] if own else []), "--add", f"{lacks}={_SOME[lacks]}")


def _check(account: Account, more: Budget) -> None:
    """Raising what has no limit would do nothing."""
    known = account.ledger.limits or account.limits
    free = sorted(more.limits.keys() - (known.limits.keys() if known is not None else set()))
    if free:
        reason, remedy = f"the {account.whose} has no limit of that", "set one with --set, or raise one that it has"
        raise UsageWrong(name="--add", value=", ".join(free), reason=reason, remedy=remedy)


def _table(ledger: dict[str, Any], width: int) -> list[Line]:
    from hive_bus.budget import KINDS

    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        field = "seconds" if kind == "time" else kind
        limit = ledger["limits"].get(kind, ("none", "dim"))
        rows.append((kind, limit, _number(ledger["used"][field]), _number(ledger["reserved"][field])))
    return columns(rows, width=width, flexible=(0,), right=(1, 2, 3), head=("", "limit", "used", "reserved"))


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


async def _account(shell: Shell, bus: Bus, run: str | None) -> Account:
    from hive_bus.hands.budgets import Account, period_stream, run_account

    if run is not None:
        return await run_account(bus.store.log, await bus.resolve(run))
    hive = shell.settings.budget
    if hive is None:
        raise UsageWrong(
            name="RUN",
            value="(nothing)",
            reason="the hive itself has no budget",
            remedy="name a run, or write `budget: {usd: 20, per: day}` into hive.yaml",
        )
    account = Account(period_stream(hive, bus.now()), limits=hive)
    await account.refresh(bus.store.log)
    return account
