"""Group commit on PostgreSQL: a batch is judged here and written by one call that takes the head lock, verifies and commits.

The lock is never held across a round trip. Plain events go straight to columns; everything else passes the judge
(`hive_core_db.judge`) over believed facts, and the call answers when one of them was wrong: then the facts are fetched,
the batch is judged again, and the call repeated. The functions are in `ddl/postgres_append.sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from secrets import token_hex
from typing import Final, NamedTuple

from hive_core_db.judge.batch import INLINE_LIMIT, PAYLOAD_LIMIT, SURELY_SMALL, Batch
from hive_core_db.postgres.database import LANES, Database
from hive_core_db.postgres.facts import Believed, Memory
from hive_core_db.postgres.hints import Hints
from hive_core_db.postgres.plan import (
    APPEND,
    APPEND_ONE,
    Judged,
    Marks,
    MarksOccur,
    plain_arguments,
    plain_columns,
    plain_verdicts,
)
from hive_core_db.records import Appended, AppendRequest, Refused, StoredEvent, Verdict
from hive_errors.store import PayloadTooLarge, StoreBusy, StoreError, ValueRefused

# A body that is there is marked as used now, so that no sweep takes it between here and the append that names it.
PUT_BLOB: Final = """
INSERT INTO blobs (digest, body, used_at) VALUES ($1, $2, hive_now($3)) ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at"""

# A batch whose facts are wrong so often is cut in two: what others write all the time must not hold its neighbours up.
_ROUNDS: Final = 3
_ROUNDS_ALONE: Final = 50
# With so large a share of others' events in the log, two appends at once are one too many.
_CROWDED: Final = 0.3
_DEPENDS_ON_NOTHING: Final = AppendRequest(0)[2:]
_version = itemgetter(StoredEvent._fields.index("version"))
_ALREADY_THERE: Final = "23505"
_CHANGED_MEANWHILE: Final = "HV001"

# What the driver, the server and the judge raise when a value cannot be stored.
_FAULTS = (
    PayloadTooLarge,
    ValueRefused,
    OverflowError,
    UnicodeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
)


class _Passage(NamedTuple):
    """What goes through a call: how many events, to which streams, and what its answer comes to (verdicts, versions)."""

    events: int
    streams: Collection[str]
    finish: Callable[[Sequence[int]], tuple[list[Verdict], Mapping[str, int]]]


class _Stale(Exception):
    """Something was not as it was believed; nothing was written."""


class Appender:
    """Appends batches; two calls may be under way at once, each on a connection of its own.

    Guarantees:
        One request's verdict never fails its neighbours. A lost connection is `StoreUnreachable`: the batch is
        in the log whole, in part (request by request) or not at all, and the same requests again find out.
    """

    def __init__(self, database: Database, memory: Memory) -> None:
        self._database = database
        self._topics: set[str] = set()
        self._memory = memory
        self._hints = Hints()
        self._head = 0
        self._under_way = [0] * LANES

    @property
    def lanes(self) -> int:
        """How many appends at once serve best: two overlap client and server; while other processes append they do that, and
        everybody waits for the same lock, where one large batch goes further than two small ones.
        """
        return LANES if self._hints.others < _CROWDED else 1

    async def append(self, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Judge and write ``batch``; the fault of one request never fails its neighbours."""
        if not batch:
            return []
        lane = self._under_way.index(min(self._under_way))
        self._under_way[lane] += 1
        try:
            return await self._append(lane, batch)
        finally:
            self._under_way[lane] -= 1

    async def _append(self, lane: int, batch: Sequence[AppendRequest]) -> list[Verdict]:
        look = False
        if _is_plain(batch):
            try:
                return await self._plain(lane, batch)
            except (_Stale, *_FAULTS):
                # A known id, or a value: the judge finds out.
                look = True
        try:
            await self._put_large(batch)
            return await self._judged(lane, batch, look=look)
        except _FAULTS:
            return [await self._alone(lane, request) for request in batch]

    async def _plain(self, lane: int, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Append events that depend on nothing: no judge is needed, and no fact believed."""
        epoch = batch[0].epoch
        if len(batch) == 1 and len(batch[0].events) == 1:
            return await self._one(lane, batch[0])
        columns = plain_columns(batch)
        if max(map(len, columns.events[9])) > SURELY_SMALL:
            raise _Stale
        topics = set(columns.events[2]) - self._topics
        arguments = _marked(
            lambda marks: plain_arguments(
                columns,
                marks,
                epoch=epoch,
                given_now=self._database.given_now(),
                topics=sorted(topics) or None,
                hints=self._hints,
            )
        )
        streams = columns.streams or ()
        # Where the hints were exact, the answer does not repeat them.
        hinted = self._hints.of(streams)

        def finish(answer: Sequence[int]) -> tuple[list[Verdict], Mapping[str, int]]:
            first, stamp, *bases = answer
            rows = columns.rows(first, stamp, bases or hinted)
            versions = dict(zip(columns.events[1], map(_version, rows), strict=True)) if streams else {}
            self._topics.update(topics)
            return plain_verdicts(batch, rows, first), versions

        return await self._call(lane, APPEND, arguments, _Passage(len(columns.events[0]), streams, finish))

    async def _one(self, lane: int, request: AppendRequest) -> list[Verdict]:
        (
            event_id, stream, topic, correlation_id, causation_id, cause_position, decided_by, source,
            schema_version, payload, metadata, digest, occurred_at, fresh,
        ) = request.events[0]  # fmt: skip
        if len(payload) > SURELY_SMALL:
            raise _Stale
        new = topic not in self._topics
        hints = self._hints
        streams = (stream,)
        (hint,), holds_at = (hints.of(streams), hints.holds_at(streams)) if not fresh else ((None,), None)
        arguments = (
            request.epoch, self._database.given_now(), fresh, hint, holds_at, new, event_id, stream, topic, correlation_id,
            causation_id, cause_position, decided_by, source, schema_version, payload, metadata, digest, occurred_at,
        )  # fmt: skip

        def finish(answer: Sequence[int]) -> tuple[list[Verdict], Mapping[str, int]]:
            position, stamp, base = answer
            if new:
                self._topics.add(topic)
            cause = cause_position
            if cause is not None and cause < 0:
                cause = position - 1 - cause
            row = StoredEvent(
                position, event_id, stream, base + 1, topic, correlation_id, causation_id, cause, decided_by, source,
                schema_version, payload, metadata, digest, position, stamp if occurred_at is None else occurred_at, stamp,
            )  # fmt: skip
            return [Appended(position, position, (row,))], {stream: base + 1}

        return await self._call(lane, APPEND_ONE, arguments, _Passage(1, streams, finish))

    async def _judged(self, lane: int, batch: Sequence[AppendRequest], *, look: bool) -> list[Verdict]:
        facts = Believed(self._memory, batch, head=self._head)
        if look:
            await facts.fetch(self._database)
        for _ in range(_ROUNDS if len(batch) > 1 else _ROUNDS_ALONE):
            await facts.complete(self._database)
            staged = Batch(
                facts,
                epoch=facts.epoch,
                next=facts.head + 1,
                recorded_at=0,
                now=self._database.now(),
                versions={},
                topics=self._topics.copy(),
                look=facts.exact,
            )
            verdicts = [staged.judge(request) for request in batch]
            if not facts.exact and not all(type(verdict) is Appended for verdict in verdicts):
                # Nobody is refused on belief.
                await facts.fetch(self._database)
                continue
            judged = Judged(batch, verdicts, staged, facts)
            if judged.is_empty:
                return verdicts
            try:
                return await self._write(lane, judged, staged, facts)
            except _Stale:
                await facts.fetch(self._database)
        if len(batch) == 1:
            raise StoreBusy(url=str(self._database.url), waited=0.0)
        half = len(batch) // 2
        return [
            *await self._judged(lane, batch[:half], look=True),
            *await self._judged(lane, batch[half:], look=True),
        ]

    async def _write(self, lane: int, judged: Judged, staged: Batch, facts: Believed) -> list[Verdict]:
        database = self._database
        arguments = _marked(
            lambda marks: judged.arguments(
                marks, epoch=facts.epoch, given_now=database.given_now(), now=database.now(), hints=self._hints
            )
        )

        def finish(answer: Sequence[int]) -> tuple[list[Verdict], Mapping[str, int]]:
            verdicts = judged.verdicts(answer)
            self._topics.update(staged.new_topics)
            self._learn(judged)
            return verdicts, judged.versions

        return await self._call(lane, APPEND, arguments, _Passage(judged.count, judged.streams, finish))

    def _learn(self, judged: Judged) -> None:
        memory = self._memory
        for work_id in judged.work.gone:
            memory.items.pop(work_id, None)
        for row in judged.work.changed:
            memory.keep(row)
        for row in judged.work.new:
            memory.keep(row)
            memory.keep_base((row.correlation_id, row.queue), row.base)
        for queue, turn in judged.work.turns:
            memory.turns[queue] = max(turn, memory.turns.get(queue, 0.0))

    async def _call(self, lane: int, statement: str, arguments: Sequence[object], passage: _Passage) -> list[Verdict]:
        """Call the database once and say what came of it.

        Raises:
            _Stale: An assumption was wrong, or an id is known; nothing was written.
            ValueRefused: A value cannot be stored; nothing was written.
            StoreUnreachable: The connection was lost; what was asked may have happened.
        """
        hints = self._hints
        flight = hints.depart(passage.events, passage.streams)
        try:
            answer: list[int] = await self._database.call(lane, statement, *arguments)
        except StoreError as error:
            hints.fail(flight)
            if getattr(error.__cause__, "sqlstate", None) in {_ALREADY_THERE, _CHANGED_MEANWHILE}:
                raise _Stale from error
            raise
        except BaseException:
            hints.fail(flight)
            raise
        if answer[0] < 0:
            hints.fail(flight)
            raise _Stale
        self._head = max(self._head, answer[0] - 1)
        verdicts, versions = passage.finish(answer)
        hints.arrive(flight, answer[0], versions)
        return verdicts

    async def _alone(self, lane: int, request: AppendRequest) -> Verdict:
        try:
            await self._put_large((request,))
            return (await self._judged(lane, (request,), look=True))[0]
        except PayloadTooLarge as error:
            return Refused(error)
        except ValueRefused as error:
            return Refused(error)
        except _FAULTS as error:
            return Refused(ValueRefused(reason=f"{type(error).__name__}: {error}"))

    async def _put_large(self, batch: Sequence[AppendRequest]) -> None:
        """Write large bodies in transactions of their own: the head lock is not held for their length."""
        large = [event for request in batch for event in request.events if len(event.payload) > SURELY_SMALL]
        bodies = [(event, event.payload.encode()) for event in large]
        bodies = [(event, body) for event, body in bodies if len(body) > INLINE_LIMIT]
        for event, body in bodies:
            if len(body) > PAYLOAD_LIMIT:
                raise PayloadTooLarge(field=f"payload of {event.event_id}", size=len(body), limit=PAYLOAD_LIMIT)
            if sha256(body).hexdigest() != event.digest:
                raise ValueError(f"the digest of {event.event_id} is not that of its payload")
        for event, body in bodies:
            await self._database.execute(PUT_BLOB, event.digest, body, self._database.given_now())


def _is_plain(batch: Sequence[AppendRequest]) -> bool:
    epoch = batch[0].epoch
    return all(request[2:] == _DEPENDS_ON_NOTHING and request.epoch == epoch and request.events for request in batch)


def _marked(arguments: Callable[[Marks], list[object]]) -> list[object]:
    try:
        return arguments(Marks())
    except MarksOccur:
        # Somebody keeps control characters in his texts. Nobody can have foreseen these:
        return arguments(Marks(f"\x1f{token_hex(16)}", f"\x1e{token_hex(16)}"))
