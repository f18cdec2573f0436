"""History: a run's events by any of its names, and their causal tree.

Positions are the only coordinate. An orphan, whose cause lies outside the run, hangs
under the root; an unknown topic is a node like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from hive_bus.lineage import lineage, read_branch
from hive_bus.reading import to_records
from hive_bus.record import Record
from hive_core_db.records import StoredEvent
from hive_core_db.store import EventLog
from hive_errors import NotFound

_SHORTEST_PREFIX: Final = 4
IMPORTED: Final = "imported"
"""Where the metadata of an imported event say at which position and when it was first recorded."""
_RUN_STARTS: Final = ("workflow.requested", "workflow.forked")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceNode:
    """An event and what it caused, in log order. ``waited`` is seconds since its cause was recorded (0 for a root)."""

    record: Record
    waited: float
    children: tuple[TraceNode, ...] = ()

    @property
    def position(self) -> int:
        """The event's place in the log."""
        return self.record.position

    @property
    def topic(self) -> str:
        """What kind of event it is."""
        return self.record.topic

    @property
    def last_recorded_at(self) -> int:
        """When the last event of this subtree was recorded, UTC microseconds."""
        return max(node.record.recorded_at for node in self.walk())

    @property
    def duration(self) -> float:
        """Seconds from this event to the last one it led to."""
        return (self.last_recorded_at - self.record.recorded_at) / 1_000_000

    def walk(self) -> Iterator[TraceNode]:
        """This node and all below it, each before what it caused."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run as a causal tree: ``roots`` are the events without a cause inside the run."""

    correlation_id: str
    roots: tuple[TraceNode, ...]

    def walk(self) -> Iterator[TraceNode]:
        """Every node, each before what it caused."""
        for root in self.roots:
            yield from root.walk()

    @property
    def duration(self) -> float:
        """Seconds from the first event to the last."""
        times = [node.record.recorded_at for node in self.walk()]
        return (max(times) - min(times)) / 1_000_000

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: the nodes in walking order, each with its depth and its parent's position.

        Flat, for a run of a thousand steps is a chain a thousand deep, which no JSON encoder nests.
        """
        nodes: list[dict[str, Any]] = []
        waiting: list[tuple[TraceNode, int | None, int]] = [(root, None, 0) for root in reversed(self.roots)]
        while waiting:
            node, parent, depth = waiting.pop()
            nodes.append(_as_dict(node, parent, depth))
            waiting.extend((child, node.position, depth + 1) for child in reversed(node.children))
        return {"correlation_id": self.correlation_id, "duration": self.duration, "nodes": nodes}


async def resolve(log: EventLog, name: str) -> str:
    """The correlation id that ``name`` means: itself, a unique prefix of four or more characters, ``@`` the last run."""
    if name == "@":
        newest = await log.latest(_RUN_STARTS, limit=1)
        if not newest:
            raise NotFound(kind="run", name=name, reason="the log has no run yet")
        return newest[0].correlation_id
    if name and await log.last_of_correlation(name):
        return name
    if len(name) < _SHORTEST_PREFIX:
        raise NotFound(kind="run", name=name, reason=f"a prefix needs {_SHORTEST_PREFIX} characters")
    candidates = await log.correlations(name, limit=10)
    if not candidates:
        raise NotFound(kind="run", name=name, reason="nothing in the log has that correlation id")
    if len(candidates) > 1:
        raise NotFound(kind="run", name=name, reason=f"it may mean {', '.join(candidates)}")
    return candidates[0]


async def history(log: EventLog, name: str, *, after: int = 0, at: int | None = None) -> list[Record]:
    """Every record of the run that ``name`` means, above ``after`` and up to ``at`` (None: to its end), in log order.

    A branch's with what it inherits.
    """
    segments = await lineage(log, await resolve(log, name))
    pages = read_branch(log, segments, after=after, upto=at)
    return [record async for rows in pages for record in to_records(list(map(first_recorded, rows)))]


def first_recorded(row: StoredEvent) -> StoredEvent:
    """The event as of when it happened: an imported one was recorded elsewhere before (see ``transfer``)."""
    if row.metadata is None or IMPORTED not in row.metadata:
        return row
    said = from_json(row.metadata).get(IMPORTED)
    return row._replace(recorded_at=said["recorded_at"]) if isinstance(said, dict) else row


async def trace(log: EventLog, name: str, *, at: int | None = None) -> Trace:
    """The causal tree of the run that ``name`` means, up to ``at``; a branch's with what it inherits."""
    correlation_id = await resolve(log, name)
    return Trace(correlation_id=correlation_id, roots=causal_tree(await history(log, correlation_id, at=at)))


def causal_tree(records: Sequence[Record]) -> tuple[TraceNode, ...]:
    """Records by what caused them. What has no cause among them is a root, but for orphans: they hang under the first."""
    by_id = {record.event_id: record for record in records}
    caused: dict[str, list[Record]] = {}
    roots: list[Record] = []
    for record in records:
        cause = by_id.get(record.causation_id or "")
        # A cause lies before its effects; one that does not (a publisher's invention) would make a circle.
        if cause is not None and cause.position < record.position:
            caused.setdefault(cause.event_id, []).append(record)
        elif record.causation_id and roots:
            caused.setdefault(roots[0].event_id, []).append(record)
        else:
            roots.append(record)
    nodes: dict[str, TraceNode] = {}
    # Effects lie behind their causes, so a walk from the end has every child ready, however deep the tree.
    for record in reversed(records):
        cause = by_id.get(record.causation_id or "")
        waited = (record.recorded_at - cause.recorded_at) / 1_000_000 if cause is not None else 0.0
        children = sorted(caused.get(record.event_id, ()), key=lambda child: child.position)
        nodes[record.event_id] = TraceNode(
            record=record, waited=max(waited, 0.0), children=tuple(nodes[child.event_id] for child in children)
        )
    return tuple(nodes[root.event_id] for root in roots)


def _as_dict(node: TraceNode, parent: int | None, depth: int) -> dict[str, Any]:
    record = node.record
    return {
        "position": record.position,
        "parent": parent,
        "depth": depth,
        "event_id": record.event_id,
        "causation_id": record.causation_id,
        "topic": record.topic,
        "stream": record.stream,
        "source": record.source,
        "recorded_at": record.recorded_at,
        "waited": node.waited,
        "data": record.data,
    }
