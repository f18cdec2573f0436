"""An agent that sends a receipt for every order:  hive agent mailer:agent"""

from hive_bus import Agent, Context, Event, Record


class OrderPlaced(Event, topic="order.placed"):
    order_id: str
    total: float


class ReceiptSent(Event, topic="receipt.sent"):
    order_id: str


agent = Agent("mailer")


@agent.on(OrderPlaced)
async def send_receipt(record: Record, ctx: Context) -> None:
    await ctx.publish(ReceiptSent(order_id=record.data["order_id"]))
