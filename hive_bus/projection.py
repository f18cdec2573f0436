"""Projections: read models as documents, folded from the log, written together with their checkpoint.

A projection is a pure function of documents and records. Its rows say from which
position to which they held, so the past can be asked like the present. A rebuild is
another version of the view, from the beginning; a switch is one row.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import orjson

from hive_bus.envelope import Collector
from hive_bus.events.system import ViewSwitched
from hive_bus.groups.chain import Link
from hive_bus.groups.consumer import Owned
from hive_bus.groups.member import GroupMember
from hive_bus.groups.parking import COMMANDS, RetryPolicy, describe, discarded, hopeless, system_event
from hive_bus.groups.recovery import Failure, Holding, Recovery
from hive_bus.record import Record
from hive_bus.surely import patiently
from hive_bus.tasks import together
from hive_core_db.records import AppendRequest, StoredEvent, ViewRow, ViewWrite
from hive_errors import NewerVersion

if TYPE_CHECKING:
    from hive_bus.bus import Bus

SWITCHES: Final = "views"
REMEMBERED: Final = 10_000
TOGETHER: Final = 500

Document = dict[str, Any]


class Projection(ABC):
    """A read model: ``name``, ``version``, the ``topics`` it folds (patterns; none: all), and three functions.

    ``apply`` is pure: no clock, no I/O, nothing but its arguments. Another ``version`` is another
    view, built from the log's beginning.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    topics: ClassVar[tuple[str, ...]] = ()

    def key(self, record: Record) -> str | None:
        """The document that a record belongs to; None: to none."""
        return record.stream

    @abstractmethod
    def apply(self, document: Document | None, record: Record) -> Document | None:
        """The document after ``record``; None: there is none any more."""

    def sort(self, document: Document) -> str:
        """What documents are listed by, before their keys."""
        return ""


@dataclass(slots=True, kw_only=True)
class _Written(Collector):
    """What handling a record of a projection leads to: documents instead of events."""

    views: list[ViewWrite] = field(default_factory=list)


class ProjectionHost:
    """Keeps one projection up to date in this process; others wait to take over.

    It keeps the version that answers, and goes over to another when that is switched to; ``version`` names one for
    good, for a rebuild. A record that ``apply`` fails on parks its document, all others flow.
    """

    command_topics: tuple[str, ...] = COMMANDS

    def __init__(
        self, bus: Bus, projection: Projection, *, version: int | None = None, retry: RetryPolicy | None = None
    ) -> None:
        self.bus = bus
        self.projection = projection
        self._follows = version is None
        self._policy = retry or RetryPolicy()
        self._bodies: OrderedDict[str, tuple[str | None, str]] = OrderedDict()
        self._left_out: Collection[int] = ()
        self._holding: Holding | None = None
        self._keep(projection.version if version is None else version)

    def _keep(self, version: int) -> None:
        """Be a member of the group that keeps this version."""
        projection = self.projection
        self.version = version
        self.group = group_of(projection.name, version)
        self.member = GroupMember(
            self.bus,
            group=self.group,
            patterns=projection.topics,
            key=projection.key,
            consumer=self,
            partitions=1,
            commands=self,
        )
        self._recovery = Recovery(
            self.bus,
            group=self.group,
            key=projection.key,
            patterns=projection.topics,
            policy=self._policy,
            call=self._call,
            give_up=self.member.give_up,
        )

    async def run(self) -> None:
        """Fold records until cancelled."""
        if not self._follows:
            await self._recovery.beside(self.member.run())
            return
        switched = asyncio.Event()

        def look(rows: Sequence[StoredEvent]) -> None:
            if any(row.topic == ViewSwitched.TOPIC for row in rows):
                switched.set()

        # Listened to before the version is asked for: no switch falls between the two.
        stop = self.bus.tail.listen(look)
        try:
            while True:
                version = await patiently(View(self.bus, self.projection).version)
                if version != self.version:
                    self._keep(version)
                async with together() as tasks:
                    running = tasks.create_task(
                        self._recovery.beside(self.member.run()), name=f"view {self.projection.name}"
                    )
                    waiting = tasks.create_task(self._switched_away(switched), name="a switch")
                    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
                    running.cancel()
                    waiting.cancel()
        finally:
            stop()

    async def _switched_away(self, switched: asyncio.Event) -> None:
        """Return when another version answers; a switch of another view is none of ours."""
        while await patiently(View(self.bus, self.projection).version) == self.version:
            await switched.wait()
            switched.clear()

    async def caught_up(self, position: int, *, within: float) -> None:
        """Return when the documents hold everything up to ``position``; :class:`TimedOut` after ``within`` s."""
        await self.member.caught_up(position, within=within)

    # What the member asks of its consumer.

    async def assigned(self, partition: Owned) -> None:
        """Forget what another process may have changed; learn what a rebuild leaves out."""
        self._bodies.clear()
        # What was discarded for any version of the view: a rebuild leaves it out as well.
        versions = f"view/{self.projection.name}."
        self._left_out = await patiently(lambda: discarded(self.bus, lambda group: group.startswith(versions)))
        self._holding = await self._recovery.hold(partition)

    async def revoked(self, partition: Owned) -> None:
        """What is on its way is stored or fenced."""
        self._holding = None
        await self._recovery.let_go(partition)

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        """Fold a page; documents and checkpoint are one append."""
        holding = self._holding
        assert holding is not None
        parked, holding.passed = holding.parked, page[-1].position
        views: list[ViewWrite] = []
        for record in page:
            key = self.projection.key(record) or ""
            waits = parked.get(key)
            if waits is not None:
                waits.reach = record.position
                continue
            try:
                view = await self._apply(key, record)
            except NewerVersion:
                raise
            except Exception as problem:  # noqa: BLE001 - a projection's mistake parks its document, whatever it was
                _flush(holding, views, record.position - 1)
                self._recovery.park(holding, record, Failure(error=describe(problem), forever=hopeless(problem)))
                continue
            if view is not None:
                views.append(view)
            if len(views) >= TOGETHER:
                _flush(holding, views, record.position)
        _flush(holding, views, page[-1].position)
        await holding.chain.drain()

    def command_key(self, record: Record) -> str | None:
        """The document that a person's order is about, if it is for this view."""
        return record.data.get("key") if record.data.get("group") == self.group else None

    async def command(self, partition: Owned, record: Record) -> None:
        """Obey a person's order."""
        self._recovery.obey(partition, record)

    async def _apply(self, key: str, record: Record) -> ViewWrite | None:
        """The change of a document; None where it stays as it is."""
        if record.position in self._left_out:
            return None
        before = await self._body(key)
        # Decoded anew each time: an apply that changes its argument in place changes nothing of ours.
        document = self.projection.apply(None if before[0] is None else orjson.loads(before[0]), record)
        after = (None, "") if document is None else (encode_document(document), self.projection.sort(document))
        if after == before:
            return None
        self._bodies[key] = after
        body, sort = after
        return ViewWrite(
            view=self.projection.name, version=self.version, key=key, position=record.position, body=body, sort=sort
        )

    async def _body(self, key: str) -> tuple[str | None, str]:
        known = self._bodies.get(key)
        if known is None:
            get = self.bus.store.views.get
            row = await patiently(lambda: get(self.projection.name, self.version, key))
            known = self._bodies[key] = (None, "") if row is None else (row.body, row.sort)
            while len(self._bodies) > REMEMBERED:
                self._bodies.popitem(last=False)
        return known

    async def _call(self, partition: Owned, record: Record, attempt: int) -> tuple[Failure | None, Collector]:
        """Fold a record of a parked document."""
        written = _Written(bus=self.bus, group=self.group, record=record)
        try:
            view = await self._apply(self.projection.key(record) or "", record)
        except NewerVersion:
            raise
        except Exception as problem:  # noqa: BLE001 - as above
            return Failure(error=describe(problem), forever=hopeless(problem)), written
        if view is not None:
            written.views.append(view)
        return None, written


class View:
    """Asks a read model; ``version`` None asks the one that was switched to, else the projection's own."""

    def __init__(self, bus: Bus, projection: Projection, *, version: int | None = None) -> None:
        self._bus = bus
        self._projection = projection
        self._version = version

    async def get(self, key: str, *, at: int | None = None) -> Document | None:
        """One document, as it is or as it was at position ``at``."""
        row = await self._bus.store.views.get(self._projection.name, await self.version(), key, at=at)
        return None if row is None else orjson.loads(row.body)

    async def rows(
        self, *, at: int | None = None, limit: int = 100, after: tuple[str, str] | None = None
    ) -> list[tuple[str, Document]]:
        """Keys and documents ascending by (sort, key), behind ``after``."""
        rows = await self._bus.store.views.rows(
            self._projection.name, await self.version(), at=at, limit=limit, after=after
        )
        return [(row.key, orjson.loads(row.body)) for row in rows]

    async def version(self) -> int:
        """The version that answers."""
        if self._version is not None:
            return self._version
        switched = await _switched(self._bus, self._projection.name)
        return self._projection.version if switched is None else switched


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions of a view at one position: how many documents are the same, and the keys of those that differ."""

    position: int
    same: int
    different: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A version of a view that somebody keeps or kept: how far its documents are, and whether it answers.

    ``held``: a process keeps it now. ``empty``: it has no document, because there is none or they were dropped.
    """

    view: str
    version: int
    position: int
    answers: bool
    held: bool
    empty: bool


async def kept(bus: Bus) -> list[Kept]:
    """Every version that there ever was of every view of this database, by name and version."""
    found = []
    for group in await bus.store.checkpoints.groups():
        view, _, version = group.removeprefix("view/").rpartition(".")
        if not group.startswith("view/") or not version.isdigit():
            continue
        (partition,) = await bus.store.checkpoints.partitions(group)
        found.append((view, int(version), partition.position, partition.lease_id is not None))
    switched = {view: await _switched(bus, view) for view, *_ in found}
    first = {view: min(version for name, version, *_ in found if name == view) for view in switched}
    return [
        Kept(
            view=view,
            version=version,
            position=position,
            answers=version == (switched[view] or first[view]),
            held=held,
            empty=not await bus.store.views.rows(view, version, limit=1),
        )
        for view, version, position, held in sorted(found)
    ]


async def _switched(bus: Bus, view: str) -> int | None:
    """The version that was switched to last, None where none ever was."""
    row = await bus.store.views.get(SWITCHES, 0, view)
    return None if row is None else int(orjson.loads(row.body)["version"])


async def rebuild(
    bus: Bus, projection: Projection, *, version: int, beside: int | None = None, within: float = 3600.0
) -> Comparison:
    """Build ``projection`` anew as ``version``, up to the head as it is now, and compare with its own version there.

    ``beside`` is another version to compare with, up to where that has come. ``within`` is seconds. Raises
    :class:`TimedOut`. Whether to :func:`switch` is the caller's decision.
    """
    position = await bus.head()
    host = ProjectionHost(bus, projection, version=version)
    async with together() as tasks:
        running = tasks.create_task(host.run(), name=f"rebuild {projection.name}")
        try:
            await host.caught_up(position, within=within)
        finally:
            running.cancel()
    other = projection.version if beside is None else beside
    if beside is not None:
        partitions = await bus.store.checkpoints.partitions(group_of(projection.name, beside))
        position = min([position, *(partition.position for partition in partitions)])
    return await compare(bus, projection.name, other, version, at=position)


async def compare(bus: Bus, view: str, one: int, other: int, *, at: int | None = None) -> Comparison:
    """Compare two versions of a view byte for byte, at a position both have reached (None: the head)."""
    position = await bus.head() if at is None else at
    rows = {row.key: row async for row in _all_rows(bus, view, one, position)}
    same, different = 0, []
    async for row in _all_rows(bus, view, other, position):
        twin = rows.pop(row.key, None)
        if twin is not None and (twin.body, twin.sort, twin.from_position) == (row.body, row.sort, row.from_position):
            same += 1
        else:
            different.append(row.key)
    return Comparison(position=position, same=same, different=tuple(sorted([*different, *rows])))


async def switch(bus: Bus, view: str, version: int) -> None:
    """Let ``version`` answer for the view from now on: one append, which hosts hear of and go over to it."""
    body = encode_document({"version": version})
    write = ViewWrite(view=SWITCHES, version=0, key=view, position=await bus.head(), body=body)
    said = system_event(bus, ViewSwitched(view=view, version=version), cause=None, group=group_of(view, version))
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(said,), views=(write,)))


def group_of(view: str, version: int) -> str:
    """The group that keeps one version of a view."""
    return f"view/{view}.{version}"


def encode_document(document: Document) -> str:
    """A document as it is stored: JSON, keys sorted, so that equal documents are equal bytes."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def _flush(holding: Holding, views: list[ViewWrite], position: int) -> None:
    """Append documents and the checkpoint behind them."""
    if views:
        holding.chain.add(Link(key="", position=position, views=tuple(views), move=position))
        views.clear()


async def _all_rows(bus: Bus, view: str, version: int, at: int) -> AsyncIterator[ViewRow]:
    after: tuple[str, str] | None = None
    while True:
        rows = await bus.store.views.rows(view, version, at=at, limit=1000, after=after)
        for row in rows:
            yield row
        if len(rows) < 1000:
            return
        after = rows[-1].sort, rows[-1].key
