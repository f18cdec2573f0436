"""A budget against its model: hands that decide on old states, die and come late, and people who raise it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from hive_bus import Event, Record
from hive_bus.budget import Amounts, Budget, Ledger
from hive_bus.codec import encode
from hive_bus.events import BudgetReserved, BudgetSet, BudgetSettled
from hive_core_db.records import StoredEvent
from tests.support.spending import overdrawn

STREAM = "run/budget"


@dataclass
class Log:
    """A stream in memory that takes an append only at the version that it expects."""

    records: list[Record] = field(default_factory=list)

    def append(self, event: Event, intent: str = "", *, expected: int | None = None) -> bool:
        """Whether it was accepted."""
        version = len(self.records)
        if expected is not None and expected != version:
            return False
        payload = encode(event).decode()
        row = StoredEvent(
            version + 1, f"e{version}", STREAM, version + 1, event.TOPIC, "run", intent or None, None, None, "model",
            event.VERSION, payload, None, "", version + 1, 0, 0,
        )  # fmt: skip
        self.records.append(Record._make(row))
        return True


@dataclass
class Buyer:
    """A process: what it has read of the log, and the calls that it makes."""

    ledger: Ledger = field(default_factory=Ledger)
    version: int = 0
    open: dict[str, tuple[int, Amounts]] = field(default_factory=dict)

    def read(self, log: Log, upto: int) -> None:
        """Read on, not always to the end."""
        for record in log.records[self.version : upto]:
            self.ledger = self.ledger.after(record)
        self.version = max(self.version, upto)


def live(chance: Random, log: Log) -> Ledger:
    """One step after the other by anybody; returns the ledger that the log means."""
    buyers = [Buyer() for _ in range(3)]
    attempts: dict[str, int] = {}
    assert log.append(BudgetSet(limits={"usd": "3", "calls": "6"}))
    for number in range(60):
        buyer = chance.choice(buyers)
        buyer.read(log, chance.randint(buyer.version, len(log.records)))
        match chance.randint(0, 5):
            case 0 | 1:
                lost = [intent for intent in attempts if all(intent not in one.open for one in buyers)]
                intent = chance.choice([f"i{number}", *lost])
                wanted = Amounts(usd=Decimal(chance.randint(1, 12)) / 10, calls=1)
                if buyer.ledger.refuses(wanted, whose="run") is None:
                    attempt = attempts.get(intent, 0) + 1
                    event = BudgetReserved(attempt=attempt, streams=(STREAM,), **wanted.fields)
                    if log.append(event, intent, expected=buyer.version):
                        attempts[intent], buyer.open[intent] = attempt, (attempt, wanted)
            case 2 | 3 if buyer.open:
                intent, (attempt, given_) = buyer.open.popitem()
                assert given_.usd is not None
                used = Amounts(usd=given_.usd * chance.randint(0, 4) / 4, calls=1)
                log.append(BudgetSettled(attempt=attempt, **used.fields), intent)
                del attempts[intent]
            case 4 if buyer.open and chance.random() < 0.5:
                # It dies: the clock gives back what it had, or the next attempt takes its place.
                for intent, (attempt, _) in buyer.open.items():
                    if chance.random() < 0.5:
                        log.append(BudgetSettled(attempt=attempt, lost=True), intent)
                buyers[buyers.index(buyer)] = Buyer()
            case 5 if chance.random() < 0.2:
                whole = Buyer()
                whole.read(log, len(log.records))
                assert whole.ledger.limits is not None
                log.append(BudgetSet(limits=whole.ledger.limits.plus(Budget(usd=Decimal(1))).limits))
            case _:
                pass
    whole = Buyer()
    whole.read(log, len(log.records))
    return whole.ledger


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_budget_reserved_by_several_at_once_is_never_overdrawn(chance: Random) -> None:
    """Hypothesis: whatever they have read and whoever dies, used and reserved never come to more than is allowed."""
    log = Log()
    ledger = live(chance, log)
    assert overdrawn(log.records, STREAM) == []
    settled = [record.event for record in log.records if record.topic == "budget.settled"]
    spent = sum((Decimal(event.usd) for event in settled if isinstance(event, BudgetSettled)), Decimal(0))
    assert ledger.used.usd == spent
    reserved = {record.causation_id for record in log.records if record.topic == "budget.reserved"}
    assert ledger.open.keys() <= reserved
