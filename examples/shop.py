"""A subscriber agent that also takes tasks:  hive agent examples.shop:shop

Run as many processes of it as you like: they share the orders and the tasks. Orders of
one customer (their stream) are handled in order, each invoice is written exactly once.
"""

from __future__ import annotations

from hive_bus import Agent, Context, Event, HandContext, Record, Retry
from hive_bus.events.task import TaskReady


class OrderPlaced(Event, topic="shop.order_placed"):
    order: int
    item: str


class InvoiceWritten(Event, topic="shop.invoice_written"):
    order: int
    cents: int


PRICES = {"honey": 490, "wax": 1200}

shop = Agent("shop", version="1")


@shop.on(OrderPlaced)
async def invoice(record: Record, ctx: Context) -> Retry | None:
    """Write an invoice for each order; an item without a price waits until it has one."""
    order = record.event
    assert isinstance(order, OrderPlaced)
    if order.item not in PRICES:
        return Retry(after=30, reason=f"no price for {order.item}")
    await ctx.publish(InvoiceWritten(order=order.order, cents=PRICES[order.item]), stream=record.stream)
    return None


@shop.task(capability="pack")
async def pack(task: TaskReady, ctx: HandContext) -> str:
    """Take a step of a workflow that has `capability: pack`; what this returns is the step's output."""
    return f"packed {task.command} (attempt {ctx.attempt})"
