"""The brain host: feeds a brain its inputs in order and appends what it decides.

A consumer of the group ``brain/<name>``. Decisions carry derived ids, so a cause that
is delivered again can only produce "already there"; a key is handled up to the later
of its partition's checkpoint and the cause of its last own decision. Decisions are
submitted without waiting for the one before: they carry no expected version, and when
one is fenced all those behind it are, for they name the same fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic

from hive_bus.brains.ahead import Ahead
from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import CheckedFolder, decided_by, key_of
from hive_bus.brains.past import Folds, Rows, load, opens
from hive_bus.brains.session import Session
from hive_bus.brains.snapshots import Snapshots
from hive_bus.bus import Bus
from hive_bus.envelope import work_changes
from hive_bus.events.system import EventDiscarded, KeyParked, KeyUnparked
from hive_bus.groups.member import GroupMember, Owned
from hive_bus.groups.parking import COMMANDS, describe, discarded, system_event
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.tasks import alone
from hive_bus.telemetry import get_logger
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    FencedOff,
    ParkedKey,
    ParkKey,
    StoredEvent,
    UnparkKey,
    Verdict,
)
from hive_errors import DuplicateMismatch, Fenced, NewerVersion, StoreError

PARTITIONS = 16
SESSIONS = 20_000

_log = get_logger(__name__)


Pending = tuple[Session[State], AppendRequest, "asyncio.Future[Verdict]"]


class BrainHost(Generic[State]):
    """Hosts one brain in this process; as many processes as you like share its partitions."""

    def __init__(self, bus: Bus, brain: Brain[State], *, partitions: int = PARTITIONS) -> None:
        self.bus = bus
        self.brain = brain
        self.group = f"brain/{brain.name}"
        self._folder = CheckedFolder(brain)
        self._sessions: dict[str, Session[State]] = {}
        self._owned: dict[int, Owned] = {}
        self._folds = Folds(brain)
        self._discarded: dict[int, str] = {}
        self._snapshots = Snapshots(brain, bus.store)
        self._unmet: dict[str, int] = {}
        self._unmet_below = 0
        self.member = GroupMember(
            bus,
            group=self.group,
            patterns=brain.folds,
            key=lambda record: key_of(brain, record),
            consumer=self,
            partitions=partitions,
            commands=self,
        )

    async def run(self) -> None:
        """Host the brain until cancelled."""
        forget = (self.bus.writer.on_commit(self._adopt), self.bus.tail.listen(self._note))
        self._unmet_below = self.bus.tail.head
        try:
            await self.member.run()
        finally:
            for each in forget:
                each()

    def drain(self) -> None:
        """Take nothing more; what is in hand is decided on, then ``run`` returns."""
        self.member.drain()

    def states(self) -> dict[str, State]:
        """The states that this process keeps now, by key; parked keys have none."""
        return {key: session.state for key, session in self._sessions.items() if not session.parked}

    async def assigned(self, partition: Owned) -> None:
        """A partition is ours: whatever was remembered of it is stale."""
        self._forget(partition.number)
        self._owned[partition.number] = partition
        self._discarded |= await patiently(lambda: discarded(self.bus, self.group.__eq__))
        for row in await self._parked(partition):
            self._sessions[row.key] = Session(row.key, self.brain.initial(), partition.number, parked=True)

    async def revoked(self, partition: Owned) -> None:
        """The partition goes to another member."""
        self._forget(partition.number)

    def _forget(self, partition: int) -> None:
        self._owned.pop(partition, None)
        for key in [key for key, session in self._sessions.items() if session.partition == partition]:
            del self._sessions[key]

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        """Decide on every input of the page; return when all decisions are in the log."""
        pending: list[Pending[State]] = []
        try:
            for record in page:
                if decided_by(self.brain, record):
                    self._folder.check(record)
                    continue
                session = await self._ready(partition, record, pending)
                if session.parked or record.position <= session.handled:
                    continue
                self._step(partition, session, record, pending)
        finally:
            await self._settle(partition, pending)
        await self._snapshots.keep()
        self._trim()

    def _step(
        self,
        partition: Owned,
        session: Session[State],
        record: StoredEvent,
        pending: list[Pending[State]],
        *,
        into: Record | None = None,
    ) -> None:
        """Handle one input: fold, decide, submit; an inherited one into the branch of the record ``into``."""
        try:
            branch = None if into is None else into.correlation_id
            state, decided = self._folder.handle(session.state, record, record.position, branch)
        except NewerVersion:
            raise
        except Exception as problem:  # noqa: BLE001 - a brain's mistake parks its key, whatever it was
            self._shelve(partition, session, into or record, problem, pending)
        else:
            session.state, session.handled = state, record.position
            session.folded += 1 + len(decided.events)
            if not decided.events:
                return
            request = AppendRequest(
                epoch=self.bus.writer.epoch,
                events=decided.events,
                owner=partition.owner,
                work=work_changes(decided.bodies),
            )
            self._submit(session, request, pending)
            if into is None:
                self._snapshots.decided(session, pending[-1][2])

    def _submit(self, session: Session[State], request: AppendRequest, pending: list[Pending[State]]) -> None:
        session.unsettled += 1
        after = pending[-1][2] if pending else None
        future = self.bus.writer.submit(request, after=after)
        future.add_done_callback(_heard)
        pending.append((session, request, future))

    def _shelve(
        self,
        partition: Owned,
        session: Session[State],
        record: StoredEvent,
        problem: Exception,
        pending: list[Pending[State]],
    ) -> None:
        session.parked = True
        self._submit(session, self._park(partition, record, problem), pending)

    async def _settle(self, partition: Owned, pending: list[Pending[State]]) -> None:
        """Wait for the verdicts; what the store could not take is given to it again, in order.

        A decision must never overtake one of an earlier cause: a key counts as handled up to the cause of its last.
        """
        while pending:
            session, request, future = pending[0]
            try:
                # Shielded: those submitted behind it must see it fail, also when nobody waits any more.
                verdict = await asyncio.shield(future)
            except StoreError as problem:
                if not problem.retryable:
                    raise
                await asyncio.wait([future for _, _, future in pending])
                verdict = await surely(self.bus.writer, request)
                pending = pending[:1] + self._again(pending[1:])
            if not isinstance(verdict, Appended | AlreadyThere):
                self._forget(partition.number)
                if isinstance(verdict, FencedOff):
                    raise Fenced(what=verdict.what, held=verdict.held, actual=verdict.actual)
                raise DuplicateMismatch(event_id=f"{session.key}: {verdict}")
            session.unsettled -= 1
            pending = pending[1:]

    def _again(self, failed: Sequence[Pending[State]]) -> list[Pending[State]]:
        """Submit again what failed behind a request that is in the log by now."""
        again: list[Pending[State]] = []
        for session, request, _ in failed:
            again.append((session, request, self.bus.writer.submit(request, after=again[-1][2] if again else None)))
            again[-1][2].add_done_callback(_heard)
        return again

    async def _ready(self, partition: Owned, record: Record, pending: list[Pending[State]]) -> Session[State]:
        """The key's session; a key whose history can no longer be read or folded is parked, and no other."""
        try:
            session = await self._session(partition, record)
            if session.inherits and not session.parked:
                await self._inherit(partition, session, record, pending)
            return session
        except (NewerVersion, StoreError):
            raise
        except Exception as problem:  # noqa: BLE001 - a brain's mistake parks its key, whatever it was
            key = key_of(self.brain, record) or ""
            session = self._sessions[key] = Session(key, self.brain.initial(), partition.number)
            self._shelve(partition, session, record, problem, pending)
            return session

    async def _session(self, partition: Owned, record: Record) -> Session[State]:
        key = key_of(self.brain, record) or ""
        session = self._sessions.get(key)
        if session is None:
            if await patiently(lambda: opens(self.brain, self.bus.store.log, record)):
                session = Session(key, self.brain.initial())
            else:
                session = await self._load(key, record.position - 1)
            session.partition = partition.number
            session.waiting = max(self._unmet.pop(key, 0), self._unmet_below)
            self._sessions[key] = session
        session.seen = max(session.seen, record.position)
        return session

    async def _inherit(
        self, partition: Owned, session: Session[State], record: Record, pending: list[Pending[State]]
    ) -> None:
        """Handle into a branch what its parents left unhandled, before its first own record."""
        log, inherited = self.bus.store.log, session.inherits[:-1]
        rows = Rows(self.brain, log, session.key, inherited, own=False, after=session.handled)
        while page := await patiently(rows.page):
            for row in page:
                if row.position not in self._discarded:
                    self._step(partition, session, row, pending, into=record)
                    if session.parked:
                        return
        session.handled, session.inherits = max(session.handled, record.position - 1), ()

    def _trim(self) -> None:
        """Forget ended keys first, then the oldest, when there are too many to keep."""
        if len(self._sessions) <= SESSIONS:
            return
        idle = [s for s in self._sessions.values() if not s.parked and s.ahead is None]
        idle.sort(key=lambda session: (not self.brain.ended(session.state), session.handled))
        for session in idle[: len(self._sessions) - SESSIONS // 2]:
            del self._sessions[session.key]

    def _park(self, partition: Owned, record: StoredEvent, problem: Exception) -> AppendRequest:
        """The append that sets a key aside: a pure function fails again until its code is mended."""
        error, key = describe(problem), key_of(self.brain, record) or ""
        self._tell(key, record.position, error)
        body = KeyParked(group=self.group, key=key, position=record.position, attempt=1, error=error)
        event = system_event(self.bus, body, cause=record, group=self.group)
        park = ParkKey(
            group=self.group,
            key=key,
            partition=partition.number,
            from_position=record.position,
            attempt=1,
            retry_in=None,
            error=error,
        )
        return AppendRequest(epoch=self.bus.writer.epoch, events=(event,), owner=partition.owner, parks=(park,))

    def _tell(self, key: str, position: int, error: str) -> None:
        _log.error("brain.parked", brain=self.brain.name, key=key, position=position, error=error)

    # Orders: a person mended the code and takes a parked key up again, or discards what it failed on.

    command_topics: tuple[str, ...] = COMMANDS

    def command_key(self, record: Record) -> str | None:
        """The key that an order is about, if it is for this brain."""
        event = record.event
        if isinstance(event, KeyUnparked | EventDiscarded) and event.group == self.group:
            return event.key
        return None

    async def command(self, partition: Owned, record: Record) -> None:
        """Take a parked key up: everything of it from where it failed, then it flows again."""
        event = record.event
        if isinstance(event, EventDiscarded):
            self._discarded[event.position] = event.key
        key = self.command_key(record)
        for row in await self._parked(partition):
            if row.key != key:
                continue
            session = await self._taken_up(row)
            if session is None:
                continue
            session.partition = partition.number
            self._sessions[row.key] = session
            await self._catch_up(partition, session)
            if not session.parked:
                unpark = (UnparkKey(group=self.group, key=key),)
                request = AppendRequest(epoch=self.bus.writer.epoch, owner=partition.owner, parks=unpark)
                await surely(self.bus.writer, request)

    async def _parked(self, partition: Owned) -> list[ParkedKey]:
        return await patiently(lambda: self.bus.store.checkpoints.parked(self.group, partition=partition.number))

    async def _taken_up(self, row: ParkedKey) -> Session[State] | None:
        """The key as it was when it failed; None while its history still cannot be read or folded."""
        try:
            return await self._load(row.key, row.from_position - 1)
        except (NewerVersion, StoreError):
            raise
        except Exception as problem:  # noqa: BLE001 - a brain's mistake parks its key, whatever it was
            self._tell(row.key, row.from_position, describe(problem))
            return None

    async def _load(self, key: str, upto: int) -> Session[State]:
        async def once() -> Session[State]:
            with alone():
                start, log = await self._snapshots.nearest(key, self._discarded), self.bus.store.log
                return await load(self._folder, log, key, upto=upto, leave_out=self._discarded, start=start)

        return await patiently(once)

    async def _catch_up(self, partition: Owned, session: Session[State]) -> None:
        pending: list[Pending[State]] = []
        await patiently(lambda: self._step_through(partition, session, pending))
        await self._settle(partition, pending)

    async def _step_through(self, partition: Owned, session: Session[State], pending: list[Pending[State]]) -> None:
        """Handle what the log holds for the key and is not handled; begun again, it goes on where it was."""
        async for record in self.bus.read(*self.brain.folds, after=session.handled):
            if key_of(self.brain, record) != session.key or decided_by(self.brain, record):
                continue
            if record.position in self._discarded:
                session.handled = record.position
            elif record.position > session.handled and not session.parked:
                if session.inherits:
                    await self._inherit(partition, session, record, pending)
                if not session.parked:
                    self._step(partition, session, record, pending)

    # One commit per step: results of this process, decided on before they are in the log.

    def ahead(self, correlation_id: str) -> Ahead[State] | None:
        """An append that decides on its own events; None when something else waits for the key.

        Whoever asked submits it, and tells its end to ``settle_ahead`` whatever it was.
        """
        session = self._sessions.get(correlation_id)
        if session is None or session.parked or session.ahead is not None or session.handled < session.waiting:
            return None
        if session.unsettled:
            # The store may not have taken it: given to it again, it would lie behind what was decided after it.
            return None
        partition = self._owned.get(session.partition)
        if partition is None or self.brain.keyed_by != "correlation":
            return None
        session.ahead = Ahead(
            self._folder,
            self._folds.__getitem__,
            session.state,
            quiet={session.key: session.seen},
            owner=partition.owner,
        )
        return session.ahead

    def settle_ahead(self, correlation_id: str, ahead: Ahead[State]) -> None:
        """The append that carried decisions ahead has its verdict: refused ones are forgotten."""
        session = self._sessions.get(correlation_id)
        if session is not None and session.ahead is ahead:
            session.ahead = None

    def _adopt(self, rows: Sequence[StoredEvent]) -> None:
        """What was decided ahead is in the log: it is the state now, before anybody is told of the commit."""
        for row in rows:
            session = self._sessions.get(row.correlation_id)
            ahead = None if session is None else session.ahead
            if session is None or ahead is None or not ahead.events or row.event_id != ahead.events[0].event_id:
                continue
            session.ahead = None
            # The tail may have been quicker, and these very events, and more, were handled in the ordinary way.
            if session.handled < row.position:
                session.state, session.handled = ahead.state, row.position + ahead.handled - 1
                session.folded += len(ahead.events)
                self._snapshots.decided_ahead(session, ahead.events, ahead.handled, row.position)
                # The append proved that nothing of the key lies between what was seen and itself.
                session.seen = max(session.seen, row.position + len(ahead.events) - 1)

    def _note(self, rows: Sequence[StoredEvent]) -> None:
        """Follow the log without a hole: what was seen of a key, and the last input that waits for it.

        Other processes' events count as ours do: ``seen`` beyond one that is not handled would let an
        append ahead jump over it.
        """
        by_correlation = self.brain.keyed_by == "correlation"
        sessions, folds = self._sessions, self._folds
        for row in rows:
            key = row.correlation_id if by_correlation else row.stream
            session = sessions.get(key)
            position = row.position
            if session is not None and position > session.seen:
                session.seen = position
            if not folds[row.topic] or decided_by(self.brain, row):
                continue
            if session is None:
                self._unmet[key] = position
            elif position > session.waiting:
                session.waiting = position
        if len(self._unmet) > SESSIONS:
            self._unmet.clear()
            self._unmet_below = rows[-1].position


def _heard(future: asyncio.Future[Verdict]) -> None:
    """Its failure is dealt with by whoever settles the page, or by nobody, when the page is given up."""
    if not future.cancelled():
        future.exception()
