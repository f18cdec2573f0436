"""A small shop: the brain that proves floor 3 before there is a queen, and the hands it needs.

An order is picked item by item, approved by a person when it is dear, charged, shipped and
closed; a customer or a timer may stop it at any time. Picking is idempotent, charging is
unsafe, shipping can be asked what happened: one of each effect class that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hive_bus.brains.brain import Brain, Input
from hive_bus.effects import Cancelled, CancelRequested, EffectClass, Failed, Intent, WorkPolicy
from hive_bus.event import Draft, Event
from hive_bus.events import ApprovalCancelRequested, ApprovalRequested, TimerCancelRequested, TimerSet

DEAR = 50


class OrderPlaced(Event, topic="shop.ordered"):
    items: tuple[str, ...]
    price: int = 10
    patience: float = 60.0


class OrderStopped(Event, topic="shop.stop_asked"):
    reason: str = "the customer changed their mind"


class OrderNoted(Event, topic="shop.noted"):
    note: str


class OrderAnswered(Event, topic="shop.answered"):
    answer: str


class OrderClosed(Event, topic="shop.closed"):
    outcome: str


class PickRequested(Intent, topic="pick.requested", results=("pick.done",)):
    item: str

    def work(self) -> WorkPolicy:
        return WorkPolicy(labels=("pick",), max_attempts=4, backoff=0.2, running_timeout=4.0, waiting_timeout=120.0)


class PickDone(Event, topic="pick.done"):
    shelf: int


class PickCancelRequested(CancelRequested, topic="pick.cancel_requested"):
    pass


class ChargeRequested(Intent, topic="charge.requested", results=("charge.made",)):
    amount: int

    def work(self) -> WorkPolicy:
        return WorkPolicy(labels=("charge",), effect=EffectClass.UNSAFE, backoff=0.2, running_timeout=6.0)


class ChargeMade(Event, topic="charge.made"):
    receipt: str


class ChargeCancelRequested(CancelRequested, topic="charge.cancel_requested"):
    pass


class ShipRequested(Intent, topic="ship.requested", results=("ship.sent",)):
    parcels: int

    def work(self) -> WorkPolicy:
        return WorkPolicy(
            labels=("ship",), effect=EffectClass.RECONCILABLE, max_attempts=5, backoff=0.2, silent_timeout=3.0
        )


class ShipSent(Event, topic="ship.sent"):
    parcel: str


class ShipCancelRequested(CancelRequested, topic="ship.cancel_requested"):
    pass


_ASKS: dict[str, type[CancelRequested]] = {
    "pick.requested": PickCancelRequested,
    "charge.requested": ChargeCancelRequested,
    "ship.requested": ShipCancelRequested,
    "approval.requested": ApprovalCancelRequested,
    "timer.set": TimerCancelRequested,
}
_STOPS = {"approval.denied": "denied", "approval.expired": "not approved in time", "timer.fired": "took too long"}


@dataclass(frozen=True, slots=True)
class Order:
    """An order so far. ``open`` are intents without an end: (id, topic); ``asked`` those that were asked to end."""

    items: tuple[str, ...] = ()
    price: int = 0
    open: tuple[tuple[str, str], ...] = ()
    asked: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str = ""
    closed: str = ""

    @property
    def outcome(self) -> str:
        """How it ends, once that is known."""
        return self.stopped or ("shipped" if "ship.sent" in self.ends else "")

    def end(self, intent_id: str, topic: str, why: str) -> Order:
        """An intent has its end."""
        left = tuple(pair for pair in self.open if pair[0] != intent_id)
        return replace(self, open=left, ends=(*self.ends, topic), stopped=self.stopped or ("" if self.outcome else why))


class Shop(Brain[Order]):
    """Decides what happens to an order; the key is its correlation id."""

    name = "shop"
    folds = ("shop.>", "pick.*", "charge.*", "ship.*", "approval.*", "timer.*")
    home = "order"
    opens = "shop.ordered"

    def initial(self) -> Order:
        """No order yet."""
        return Order()

    def evolve(self, state: Order, record: Input) -> Order:
        """Follow the order, and which of its intents are open."""
        match record.event:
            case OrderPlaced(items=items, price=price):
                return replace(state, items=items, price=price)
            case OrderNoted(note=note):
                return replace(state, notes=(*state.notes, f"{note} at {len(state.ends)}"))
            case OrderStopped(reason=reason):
                return replace(state, stopped=state.outcome or reason)
            case OrderClosed(outcome=outcome):
                return replace(state, closed=outcome)
            case CancelRequested(intent_id=intent_id):
                return replace(state, asked=(*state.asked, intent_id))
            case Intent():
                return replace(state, open=(*state.open, (record.event_id, record.topic)))
        asked = dict(state.open).get(record.causation_id or "")
        if asked is None or record.topic.endswith((".started", ".attempt_failed", ".superseded")):
            return state
        why = _STOPS.get(record.topic, "")
        if isinstance(record.event, Failed):
            why = f"{record.topic}: {record.event.kind}"
        elif isinstance(record.event, Cancelled):
            why = f"{record.topic}"
        return state.end(record.causation_id or "", record.topic, why)

    def decide(self, state: Order, record: Input) -> Sequence[Event | Draft]:
        """The next step, from the state alone."""
        if not state.items or state.closed:
            return []
        if record.topic == "shop.noted":
            return [OrderAnswered(answer=state.notes[-1])]
        if record.topic == "shop.ordered":
            event = record.event
            patience = event.patience if isinstance(event, OrderPlaced) else 60.0
            picks = [PickRequested(item=item) for item in state.items]
            return [*picks, TimerSet(timer_id="patience", seconds=patience)]
        if state.outcome:
            unasked = [_ASKS[topic](intent_id=key) for key, topic in state.open if key not in state.asked]
            return unasked or ([] if state.open else [OrderClosed(outcome=state.outcome)])
        if any(topic != "timer.set" for _, topic in state.open):
            return []
        return [self._next(state)]

    def _next(self, state: Order) -> Event:
        if "charge.made" in state.ends:
            return ShipRequested(parcels=len(state.items))
        if state.price > DEAR and "approval.granted" not in state.ends:
            return ApprovalRequested(approval_id="price", question="so dear?", expires_in=20.0)
        return ChargeRequested(amount=state.price)

    def ended(self, state: Order) -> bool:
        """Nothing follows a closed order."""
        return bool(state.closed)
