"""What a group asks of whoever consumes its records, and the partition it hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hive_bus.record import Record
from hive_core_db.records import CheckpointMove


@dataclass(slots=True, eq=False, kw_only=True)
class Owned:
    """A partition that this process holds.

    ``position`` is its stored checkpoint, ``handled`` how far it really is, ``moving`` how
    far the requests on their way move it.
    """

    group: str
    number: int
    lease_id: str
    fence: int
    position: int
    handled: int = 0
    moving: int = 0

    def __post_init__(self) -> None:
        self.handled = self.moving = self.position

    @property
    def owner(self) -> tuple[str, int, str, int]:
        """What an append request names as its owner."""
        return self.group, self.number, self.lease_id, self.fence

    def move(self, position: int) -> CheckpointMove:
        """The move of its checkpoint to ``position``; the request is submitted next."""
        self.moving = max(self.moving, position)
        return CheckpointMove(
            group=self.group, partition=self.number, position=position, lease_id=self.lease_id, fence=self.fence
        )


class Consumer(Protocol):
    """What is done with a group's records.

    Guarantees given to it:
        ``handle`` is called with records of one partition in log order, never twice at a
        time for one partition; partitions are handled side by side. ``assigned`` comes
        before the first page, ``revoked`` after the last, also after a failure.

    ``handle`` returns when every record of the page is handled or parked. Raising
    :class:`Fenced` gives the partition up to whoever has it now, :class:`NewerVersion`
    releases it for others and for as long as this member lives; any other error ends the member.
    """

    async def assigned(self, partition: Owned) -> None: ...
    async def revoked(self, partition: Owned) -> None: ...
    async def handle(self, partition: Owned, page: Sequence[Record]) -> None: ...


class Commands(Protocol):
    """Events that are orders to the group's owner of a key, whatever the group's patterns are."""

    command_topics: tuple[str, ...]

    def command_key(self, record: Record) -> str | None:
        """The key that the order is about; None: not this group's."""
        ...

    async def command(self, partition: Owned, record: Record) -> None: ...
