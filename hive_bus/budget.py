"""A budget as it is written down, and the ledger that its events fold to: limits, what was used, what is reserved.

Pure: no log, no clock. Two ledgers made of the same events are equal. Kinds are ``usd``, ``tokens``, ``calls`` and ``time``
(seconds that calls take, added up).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from hive_bus.events.budget import BudgetCleared, BudgetExceeded, BudgetReserved, BudgetSet, BudgetSettled
from hive_bus.record import Record
from hive_errors import BudgetInvalid

KINDS: Final = ("usd", "tokens", "calls", "time")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_COUNTS: Final = {"k": 1_000, "M": 1_000_000}
# As people write them: 200k, 10m.
_TEXT_OR_INTEGER: Final = WithJsonSchema({"type": ["integer", "string"]})
_TEXT_OR_NUMBER: Final = WithJsonSchema({"type": ["number", "string"]})
Period = Literal["day", "month", "ever"]


def _seconds(value: object) -> object:
    """Seconds of ``10m`` or ``1h30m``; what is no duration is left to the field."""
    if isinstance(value, str) and re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return value


def _count(value: object) -> object:
    """A number of ``200k`` or ``1.5M``."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?[kM]", value):
        return int(Decimal(value[:-1]) * _COUNTS[value[-1]])
    return value


class Budget(BaseModel):
    """How much may be used, by kind; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False), _TEXT_OR_NUMBER] | None = Field(
        default=None, description="US dollars that model calls may cost; a call whose price nobody knows is not made"
    )
    tokens: Annotated[int, Field(ge=0), BeforeValidator(_count), _TEXT_OR_INTEGER] | None = Field(
        default=None, description="tokens, in and out, such as 200k"
    )
    calls: Annotated[int, Field(ge=0), BeforeValidator(_count), _TEXT_OR_INTEGER] | None = Field(
        default=None, description="answers of models"
    )
    time: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_seconds), _TEXT_OR_NUMBER] | None = Field(
        default=None, description="time that model calls take, added up: 10m, 1h30m, or seconds"
    )

    @property
    def limits(self) -> dict[str, str]:
        """The kinds that have a limit, as text."""
        known = {kind: value for kind in KINDS if (value := getattr(self, kind)) is not None}
        return {
            kind: f"{value:f}" if kind == "usd" else f"{value:g}" if kind == "time" else str(value)
            for kind, value in known.items()
        }

    def plus(self, more: Budget) -> Budget:
        """Raised by ``more``; a kind without a limit stays without one."""
        raised = {
            kind: getattr(self, kind) + (getattr(more, kind) or 0) for kind in KINDS if getattr(self, kind) is not None
        }
        return Budget.model_validate(raised)

    def but(self, other: Budget, *, without: tuple[str, ...] = ()) -> Budget:
        """With what ``other`` says in place of its own, and no limit on the kinds of ``without``."""
        return Budget.model_validate({**self.limits, **other.limits, **dict.fromkeys(without)})


class HiveBudget(Budget):
    """How much all runs together may use in a period."""

    per: Period = Field(default="day", description="`day` or `month` (in UTC) after which it begins anew, or `ever`")


def parse_budget(text: str) -> tuple[Budget, tuple[str, ...]]:
    """``usd=2,calls=50,tokens=200k,time=10m``, and the kinds whose limit is ``none``. Raises :class:`BudgetInvalid`."""
    values: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        kind, separator, value = pair.partition("=")
        if not separator or kind not in KINDS:
            raise BudgetInvalid(value=pair, reason=f"it is no kind=amount, with one of {', '.join(KINDS)}")
        values[kind] = value
    if not values:
        raise BudgetInvalid(value=text, reason="it names no kind")
    without = tuple(kind for kind, value in values.items() if value == "none")
    return budget_of({kind: value for kind, value in values.items() if value != "none"}), without


def budget_of(values: Mapping[str, Any]) -> Budget:
    """A budget from its kinds. Raises :class:`BudgetInvalid`."""
    try:
        return Budget.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = str(first["loc"][0])
        raise BudgetInvalid(value=f"{name}={first['input']}", reason=first["msg"]) from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """So much of each kind. ``usd`` None: nobody knows the price."""

    usd: Decimal | None = Decimal(0)
    tokens: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            usd=(self.usd or Decimal(0)) + (other.usd or Decimal(0)),
            tokens=self.tokens + other.tokens,
            calls=self.calls + other.calls,
            seconds=self.seconds + other.seconds,
        )

    def of(self, kind: str) -> Any:
        """How much of one kind."""
        return self.seconds if kind == "time" else getattr(self, kind)

    @property
    def fields(self) -> dict[str, Any]:
        """As events have them."""
        usd = f"{self.usd or Decimal(0):f}"
        return {"usd": usd, "tokens": self.tokens, "calls": self.calls, "seconds": round(self.seconds, 6)}


NOTHING: Final = Amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call is not made now, and for want of what. ``waits``: it may be when what is reserved has been settled."""

    reason: str
    kind: str
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What an attempt was given, and the streams where that is written."""

    attempt: int
    amounts: Amounts
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The state of a budget. ``open`` are reservations by intent, ``exceeded`` why its run is paused, ``lacks`` for want of what.

    Guarantees:
        What is used and what is reserved never come to more than the limits, as long as no call uses more than
        was reserved for it.
    """

    limits: Budget | None = None
    used: Amounts = NOTHING
    open: Mapping[str, Reservation] = field(default_factory=dict)
    exceeded: str = ""
    lacks: str = ""

    @property
    def reserved(self) -> Amounts:
        """All that is given to calls under way."""
        return sum((one.amounts for one in self.open.values()), NOTHING)

    def after(self, record: Record) -> Ledger:
        """The ledger after one of its events."""
        intent = record.causation_id or ""
        match record.event:
            case BudgetSet(limits=limits):
                return replace(self, limits=Budget.model_validate(limits), exceeded="", lacks="")
            case BudgetReserved() as event:
                # A further attempt takes the place of the one before.
                given = Reservation(attempt=event.attempt, amounts=_amounts(event), streams=event.streams)
                return replace(self, open={**self.open, intent: given})
            case BudgetSettled() as event:
                known = self.open.get(intent)
                over = known is not None and known.attempt == event.attempt
                rest = {name: one for name, one in self.open.items() if name != intent or not over}
                return replace(self, used=self.used + _amounts(event), open=rest)
            case BudgetExceeded(reason=reason, kind=kind):
                return replace(self, exceeded=reason, lacks=kind)
            case BudgetCleared():
                return replace(self, exceeded="", lacks="")
            case _:
                return self

    def refuses(self, wanted: Amounts, *, whose: str, limits: Budget | None = None) -> Refusal | None:
        """Why a call that may use ``wanted`` cannot be made now; None: it can. ``limits`` hold where the events set none."""
        budget = self.limits or limits
        waits: Refusal | None = None
        for kind in KINDS if budget is not None else ():
            limit, asked = getattr(budget, kind), wanted.of(kind)
            if limit is None:
                continue
            if asked is None:
                reason = f"the {whose}'s budget is in dollars, and nobody knows this model's price"
                return Refusal(reason=reason, kind=kind, waits=False)
            left = limit - self.used.of(kind)
            if kind == "time":
                # A call may be short: it is begun while any time is left.
                asked = min(asked, left) if left > 0 else asked
            if asked > left:
                has = f"{_shown(kind, left).partition(' ')[0]} of {_shown(kind, limit)} left"
                may = f"the next call may take {_shown(kind, asked)}"
                return Refusal(reason=f"the {whose}'s budget: {has}, and {may}", kind=kind, waits=False)
            if asked > left - self.reserved.of(kind):
                reason = f"the {whose}'s budget: the rest is reserved by calls under way"
                waits = waits or Refusal(reason=reason, kind=kind, waits=True)
        return waits

    def as_dict(self, limits: Budget | None = None) -> dict[str, Any]:
        """Plain JSON values."""
        budget = self.limits or limits
        return {
            "limits": {} if budget is None else budget.limits,
            "used": self.used.fields,
            "reserved": self.reserved.fields,
            "open": len(self.open),
            "exceeded": self.exceeded,
        }


def _amounts(event: BudgetReserved | BudgetSettled) -> Amounts:
    return Amounts(usd=Decimal(event.usd), tokens=event.tokens, calls=event.calls, seconds=event.seconds)


def _shown(kind: str, amount: Any) -> str:
    amount = max(amount, type(amount)(0))
    if kind == "usd":
        return f"${amount:.4f}"
    return f"{amount:g} s" if kind == "time" else f"{amount} {kind if amount != 1 else kind[:-1]}"
