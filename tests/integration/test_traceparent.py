"""The trace context of whoever publishes is kept on the event, so a trace goes on in the log."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hive_bus.event import Event
from hive_bus.opening import open_bus


class SpanSeen(Event, topic="sample.span_seen"):
    """An event published inside a span, or outside of one."""

    name: str


async def test_an_event_keeps_the_trace_context_of_its_publisher(hive_url: str) -> None:
    """Inside a span the event's metadata has its traceparent, which a caller may overrule; outside it has none."""
    carrier: dict[str, str] = {}
    async with open_bus(hive_url) as bus:
        with TracerProvider().get_tracer("test").start_as_current_span("order"):
            TraceContextTextMapPropagator().inject(carrier)
            await bus.publish(SpanSeen(name="inside"), correlation_id="spans")
            await bus.publish(SpanSeen(name="given"), correlation_id="spans", metadata={"traceparent": "mine"})
        await bus.publish(SpanSeen(name="outside"), correlation_id="spans")
        kept = {record.data["name"]: record.metadata for record in await bus.history("spans")}
    assert kept == {"inside": carrier, "given": {"traceparent": "mine"}, "outside": {}}
