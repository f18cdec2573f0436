"""What calls may cost, in the stream ``<run>/budget``; of the whole hive in ``budget/<period>``.

Amounts are ``usd`` (decimal text), ``tokens``, ``calls`` and ``seconds``. The cause of a reservation, and of what settles it, is
the intent. The fold is ``hive_bus.budget``'s.
"""

from __future__ import annotations

from pydantic import Field

from hive_bus.events.base import Fact


class BudgetSet(Fact, topic="budget.set"):
    """What may be used from now on, by kind, all told; a kind that is not named has no limit."""

    limits: dict[str, str] = Field(default_factory=dict)


class BudgetReserved(Fact, topic="budget.reserved"):
    """An attempt was given this much, in the append that claims it; ``streams`` are all where that is written."""

    attempt: int = 1
    usd: str = "0"
    tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    streams: tuple[str, ...] = ()


class BudgetSettled(Fact, topic="budget.settled"):
    """An attempt has ended and used this much; its reservation is over. ``lost``: its process died, nobody knows more."""

    attempt: int = 1
    usd: str = "0"
    tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    lost: bool = False


class BudgetExceeded(Fact, topic="budget.exceeded"):
    """The next call may need more than is left of a ``kind``: the run pauses. ``scope`` is ``run`` or ``hive``."""

    reason: str = ""
    kind: str = ""
    scope: str = "run"


class BudgetCleared(Fact, topic="budget.cleared"):
    """The call that had to wait has what it needs: the run goes on."""
