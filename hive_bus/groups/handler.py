"""Handlers: functions that a group calls for each record, exactly once in the log.

``async def handler(record, ctx) -> None | Retry | Skip | Park``. What a handler publishes
is appended together with its checkpoint; what fails is parked and tried again, in
order, while all other keys flow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hive_bus.envelope import Collector, current_handler, current_record
from hive_bus.event import Draft, Event
from hive_bus.groups.consumer import Owned
from hive_bus.groups.dispatch import Key
from hive_bus.groups.member import PARTITIONS, GroupMember
from hive_bus.groups.parking import COMMANDS, RetryPolicy, describe, hopeless
from hive_bus.groups.recovery import Failure, Holding, Recovery
from hive_bus.reading import FROM_BEGINNING, Start
from hive_bus.record import Record
from hive_bus.telemetry import get_logger
from hive_errors import NewerVersion

if TYPE_CHECKING:
    from hive_bus.bus import Bus

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try this record again, after ``after`` seconds (None: by the group's policy); what was published is dropped."""

    after: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """The record counts as handled; ``reason`` is logged."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """Set the record's key aside until a person retries or discards it; what was published is dropped."""

    reason: str = ""


Outcome = Retry | Skip | Park | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler knows besides the record.

    ``attempt`` counts from 1; ``partition``, ``fence`` and ``lease_id`` say as whose owner it is called.
    """

    bus: Bus = field(repr=False)
    group: str
    attempt: int
    partition: int
    fence: int
    lease_id: str

    async def publish(self, event: Event | Draft, **wishes: Any) -> int:
        """``Bus.publish``: into the handler's append; returns 0, for it has no position yet."""
        return await self.bus.publish(event, **wishes)


Handler = Callable[[Record, Context], Awaitable[Outcome]]


class HandlerGroup:
    """A handler as one member of a group.

    ``patterns`` name its topics (none: all), ``key`` what is kept in order, ``start`` where a new
    group begins. ``commit`` is how often the checkpoint of a handler that publishes nothing
    is stored: ``page`` (a page, or 200 ms) or ``each`` (every record). ``retry`` says when what
    failed is tried again.

    Guarantees:
        Records of one key are handled in log order, one at a time. What the handler
        publishes is in the log exactly once. A handler that publishes nothing is called at
        least once for each record.
    """

    command_topics: tuple[str, ...] = COMMANDS

    def __init__(
        self,
        bus: Bus,
        handler: Handler,
        *,
        group: str,
        patterns: Sequence[str] = (),
        key: Key = "stream",
        partitions: int = PARTITIONS,
        start: Start = FROM_BEGINNING,
        commit: Literal["page", "each"] = "page",
        retry: RetryPolicy | None = None,
    ) -> None:
        self.bus = bus
        self.group = group
        self._handler = handler
        self._holdings: dict[int, Holding] = {}
        self.member = GroupMember(
            bus,
            group=group,
            patterns=patterns,
            key=key,
            consumer=self,
            partitions=partitions,
            start=start,
            checkpoint=commit,
            commands=self,
        )
        self._recovery = Recovery(
            bus,
            group=group,
            key=key,
            patterns=tuple(patterns),
            policy=retry or RetryPolicy(),
            call=self._call,
            give_up=self.member.give_up,
        )

    async def run(self) -> None:
        """Handle records until cancelled or drained. Raises what ``GroupMember.run`` raises."""
        await self._recovery.beside(self.member.run())

    def drain(self) -> None:
        """Take nothing more; what is in hand is handled to its end, then ``run`` returns."""
        self.member.drain()

    async def caught_up(self, position: int, *, within: float) -> None:
        """Return when everything up to ``position`` is handled or parked; :class:`TimedOut` after ``within`` s."""
        await self.member.caught_up(position, within=within)

    # What the member asks of its consumer.

    async def assigned(self, partition: Owned) -> None:
        """Learn which keys wait."""
        self._holdings[partition.number] = await self._recovery.hold(partition)

    async def revoked(self, partition: Owned) -> None:
        """End what is being tried again; appends on their way are fenced or stored."""
        self._holdings.pop(partition.number, None)
        await self._recovery.let_go(partition)

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        """Call the handler for each record; return when what it published is in the log."""
        holding, handler, context = self._holdings[partition.number], self._handler, self._context(partition)
        parked, chain, key_of = holding.parked, holding.chain, self._recovery.key_of
        holding.passed = page[-1].position
        collector = Collector(bus=self.bus, group=self.group)
        current_handler.set(collector)
        begin = current_record.set
        try:
            for record in page:
                if parked:
                    waits = parked.get(key_of(record) or "")
                    if waits is not None:
                        waits.reach = record.position
                        continue
                # A task that outlives its record's turn is known by what its context says is being handled.
                collector.record = record
                begin(record)
                try:
                    outcome = await handler(record, context)
                except NewerVersion:
                    raise
                except Exception as problem:  # noqa: BLE001 - a handler's mistake parks its key, whatever it was
                    collector.clear()
                    self._recovery.park(holding, record, _failure(problem))
                    continue
                if outcome is not None or collector.events:
                    self._conclude(holding, record, outcome, collector)
                    collector.clear()
        finally:
            collector.closed = True
            current_handler.set(None)
            begin(None)
            # Also before a partition is given up: what was handled is stored by then.
            if len(chain):
                await chain.drain()

    def command_key(self, record: Record) -> str | None:
        """The key that a person's order is about, if it is for this group."""
        return record.data.get("key") if record.data.get("group") == self.group else None

    async def command(self, partition: Owned, record: Record) -> None:
        """Obey a person's order."""
        self._recovery.obey(partition, record)

    def _conclude(self, holding: Holding, record: Record, outcome: object, collector: Collector) -> None:
        failure = _judge(self.group, record, outcome)
        if failure is not None:
            self._recovery.park(holding, record, failure)
        elif collector.events:
            holding.chain.add(self._recovery.link(holding, record, collector, move=record.position))

    def _context(self, partition: Owned, attempt: int = 1) -> Context:
        return Context(
            bus=self.bus,
            group=self.group,
            attempt=attempt,
            partition=partition.number,
            fence=partition.fence,
            lease_id=partition.lease_id,
        )

    async def _call(self, partition: Owned, record: Record, attempt: int) -> tuple[Failure | None, Collector]:
        """Call the handler once more."""
        collector = Collector(bus=self.bus, group=self.group, record=record)
        current_handler.set(collector)
        current_record.set(record)
        try:
            outcome = await self._handler(record, self._context(partition, attempt))
        except NewerVersion:
            raise
        except Exception as problem:  # noqa: BLE001 - as above
            return _failure(problem), collector
        finally:
            collector.closed = True
            current_handler.set(None)
            current_record.set(None)
        return _judge(self.group, record, outcome), collector


def _failure(problem: Exception) -> Failure:
    return Failure(error=describe(problem), forever=hopeless(problem))


def _judge(group: str, record: Record, outcome: object) -> Failure | None:
    """What a handler's return value means; None: the record is handled."""
    match outcome:
        case None:
            return None
        case Skip(reason=reason):
            _log.info("group.skipped", group=group, position=record.position, reason=reason)
            return None
        case Retry(after=after, reason=reason):
            return Failure(error=reason or "the handler wants it again", wait=after)
        case Park(reason=reason):
            return Failure(error=reason or "the handler set it aside", forever=True)
        case _:
            shown = ascii(outcome)[:80]
            return Failure(error=f"the handler returned {shown}, not None, Retry, Skip or Park", forever=True)
