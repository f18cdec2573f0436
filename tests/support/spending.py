"""Effects that cost: an intent that budgets count, a hand for it, and what always holds of a budget's stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

from hive_bus import Event, Hand, HandContext, Intent, Record
from hive_bus.budget import KINDS, Amounts, Ledger
from hive_bus.effects import Failure, WorkPolicy


class Purchase(Intent, topic="purchase.requested", results=("purchase.done",)):
    """Something to buy: ``most`` dollars are set aside for it, ``costs`` is what it takes in the end."""

    most: str = "1"
    costs: str = "1"

    def work(self) -> WorkPolicy:
        """Budgets count it."""
        return WorkPolicy(labels=("purchase",), spends=True, backoff=0.05)


class PurchaseDone(Event, topic="purchase.done"):
    """It was bought."""

    cost: str = "0"


class BuyerReady(Event, topic="buyer.ready"):
    """A process that buys is there."""


class Buyer(Hand):
    """Performs purchases; ``perform`` is told of each and says how it goes."""

    intent = Purchase
    queues = ("purchase",)

    def __init__(
        self, perform: Callable[[Purchase, HandContext], Awaitable[Event | Failure]], concurrency: int = 4
    ) -> None:
        self.concurrency = concurrency
        self._perform = perform

    async def perform(self, intent: Purchase, ctx: HandContext) -> Event | Failure:
        """As the test says."""
        return await self._perform(intent, ctx)

    async def most(self, intent: Purchase, ctx: HandContext) -> Amounts:
        """What the purchase says."""
        return Amounts(usd=Decimal(intent.most), calls=1)

    def spent(self, intent: Purchase, outcome: Event | Failure) -> Amounts:
        """What it cost, if it was made."""
        return Amounts(usd=Decimal(intent.costs), calls=1) if isinstance(outcome, PurchaseDone) else Amounts()


def overdrawn(records: Sequence[Record], stream: str) -> list[int]:
    """The positions in a budget's stream at which more was used and reserved than it allowed."""
    ledger, found = Ledger(), []
    for record in records:
        if record.stream != stream:
            continue
        ledger = ledger.after(record)
        taken = ledger.used + ledger.reserved
        if ledger.limits is not None and any(
            (limit := getattr(ledger.limits, kind)) is not None and taken.of(kind) > limit for kind in KINDS
        ):
            found.append(record.position)
    return found
