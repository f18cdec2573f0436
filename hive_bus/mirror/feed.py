"""The feed: rows of the log as JetStream delivers them, offered to this process's tail, so that the table of events is not asked.

It is believed while a relay of this log and epoch speaks every second, positions come without a hole, and every body is what its
digest says. At the least doubt the tail reads the log, at once, and the feed begins anew; handlers see neither.
Catching up is the log's business: the feed begins where the log ends. The tail knows nothing of NATS, the feed nothing of subscribers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson

from hive_bus.bus import Bus
from hive_bus.mirror.connection import ApiRefused, Connection, cancellation_kept, connected
from hive_bus.mirror.encoding import BLOB, decode, is_ours
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.stream import Mirrored, find, mirrored, must_be_ours
from hive_bus.tail import UNATTENDED
from hive_bus.tasks import set_within
from hive_bus.telemetry import get_logger
from hive_core_db.records import StoredEvent
from hive_errors import EpochOver, HiveError
from hive_errors.mirror import (
    MirrorClientMissing,
    MirrorDoubt,
    MirrorMissing,
    MirrorNameInvalid,
    MirrorNotOurs,
    MirrorUnsuitable,
)

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from hive_bus.mirror.reader import Reader

SILENCE: Final = 3.5
"""Seconds without a word of the relay, which speaks every second, or without a position that it says is there."""
BATCH: Final = 500
"""Messages of one request; two are open, so that the server never waits for the next one."""
EXPIRES: Final = 30.0
"""Seconds after which the server ends a request, and is asked again."""
FORGOTTEN: Final = 60.0
"""Seconds after which the server forgets a consumer of which it hears nothing."""
LONGEST_PAUSE: Final = 10.0

_ENDED: Final = frozenset({"404", "408"})
_HOPELESS: Final = (EpochOver, MirrorClientMissing, MirrorNameInvalid)
_FOR_A_PERSON: Final = (MirrorNotOurs, MirrorUnsuitable)
_SECOND: Final = 1_000_000_000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """Where the live tail comes from, since which position, and, while it is the database, why."""

    source: Literal["nats", "database"] = "database"
    since: int = 0
    why: str = UNATTENDED


class Feed:
    """Feeds a bus's tail from a NATS server until it is cancelled; ``state`` says whether it does.

    Begins when somebody first follows the log in this process. ``silence`` is for how many seconds the relay may say nothing.
    """

    def __init__(self, bus: Bus, settings: NatsSettings, *, silence: float = SILENCE) -> None:
        self.state = FeedState()
        self._bus, self._settings, self._silence = bus, settings, silence
        self._turns = 0
        self._become(self.state)

    async def run(self) -> None:
        """Feed; what ends that for good is said, and the log is read from then on. Never raises, for it runs beside the bus."""
        failures = 0
        while True:
            await self._bus.tail.wanted(self.database)
            before, pause = self._turns, LONGEST_PAUSE
            try:
                await self._feed()
            except HiveError as problem:
                self.database(problem.message)
                if isinstance(problem, _HOPELESS):
                    return
                failures = 0 if self._turns > before else failures + 1
                if not isinstance(problem, _FOR_A_PERSON):
                    pause = min(LONGEST_PAUSE, 0.1 * 2**failures)
            await asyncio.sleep(pause)

    def nats(self) -> None:
        """The live tail comes from NATS from now on."""
        self._turns += 1
        self._become(FeedState(source="nats", since=self._bus.tail.head, why=""))
        _log.info("tail.nats", position=self.state.since)

    def database(self, why: str) -> None:
        """The live tail comes from the database from now on."""
        if (self.state.source, self.state.why) != ("database", why):
            # What went well and does so no more is for people to hear; what is not there yet is for those who look.
            was, here = self.state.source, self._bus.tail.head
            self._become(FeedState(source="database", since=here, why=why))
            if was == "nats":
                _log.warning("tail.database", position=here, reason=why)
            else:
                _log.debug("tail.database", position=here, reason=why)

    def _become(self, state: FeedState) -> None:
        self.state = state
        # The next renewal of the lease tells it to whoever looks.
        self._bus.about["tail"] = asdict(state)

    async def _feed(self) -> None:
        try:
            from nats.errors import Error

            from hive_bus.mirror.reader import Reader
        except ModuleNotFoundError as problem:
            raise MirrorClientMissing(package="nats-py") from problem

        reader = Reader()
        async with connected(self._settings, name=f"hive tail {self._bus.source}", client=reader) as connection:
            log, held = self._bus.store.log, self._bus.writer.epoch
            meta = await log.meta()
            if meta.epoch != held:
                raise EpochOver(url=self._bus.store.url, held=held, actual=meta.epoch)
            known = mirrored(meta, await log.epochs())
            following = Following(self, self._bus, connection, reader, known, silence=self._silence)
            try:
                await following.run()
            except (Error, OSError) as problem:
                # It ended between two questions; nobody beside the bus may fail with it.
                raise connection.unreachable(problem) from problem
            finally:
                self._bus.tail.part()


class Following:
    """One connection's messages, from where the log ended when it began, in order; it ends by raising what is doubted.

    ``received`` is the last position that came or need not come; rows wait in ``_rows`` only until the loop's next turn.
    """

    def __init__(
        self, feed: Feed, bus: Bus, connection: Connection, reader: Reader, known: Mirrored, *, silence: float
    ) -> None:
        self.received = 0
        self._feed, self._tail, self._log = feed, bus.tail, bus.store.log
        self._connection, self._reader, self._known, self._silence = connection, reader, known, silence
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._doubt: HiveError | None = None
        self._joined = False
        self._begin = 0
        self._level = 0
        self._shown = 0
        self._heard_at = self._moved_at = self._loop.time()
        self._vouched = False
        self._mirrored = 0
        self._asked = self._came = 0
        self._rows: list[StoredEvent] = []

    async def run(self) -> None:
        """Offer what comes. Raises :class:`MirrorError`, or what the store fails with; never returns."""
        forget = self._connection.when_lost(lambda: self._stop(self._connection.unreachable("the connection was lost")))
        try:
            with cancellation_kept():
                await self._reader.subscribe(self._known.names.head, cb=self._hear)
            consumer = await self._consumer()
            self._vouched = False
            inbox = self._reader.new_inbox()
            with cancellation_kept():
                await self._reader.read(inbox, self._take)
            while True:
                self._wake.clear()
                self._watch()
                # Nothing is asked for before a relay has spoken: what lies in a stream that nobody vouches for is not the log.
                if self._vouched and self._asked - self._came <= BATCH:
                    await self._ask(consumer, inbox)
                    continue
                await set_within(self._wake, self._silence / 4)
        finally:
            forget()

    async def _consumer(self) -> str:
        """Make a consumer that begins where the log ends now; returns its name."""
        stream = self._known.names.stream
        self._begin = max(self._tail.head, await self._log.head()) + 1
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._begin,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": round(FORGOTTEN * _SECOND),
        }
        try:
            answer = await self._connection.ask(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        except ApiRefused as problem:
            found = await find(self._connection, stream)
            if found is None:
                raise MirrorMissing(stream=stream) from problem
            raise self._doubts(f"no consumer: {problem.description} ({problem.code})") from problem
        # Asked when the consumer is there: one that begins below the stream's first message begins above it, silently.
        found = await find(self._connection, stream)
        if found is None:
            raise MirrorMissing(stream=stream)
        must_be_ours(found, self._known)
        if found.first > self._begin:
            raise self._doubts(f"the stream begins at {found.first}")
        self.received = min(self._begin - 1, found.last)
        self._shown = found.last
        return str(answer["name"])

    async def _ask(self, consumer: str, inbox: str) -> None:
        """Ask for more, while what was asked for before is on its way."""
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._known.names.stream}.{consumer}"
        body = orjson.dumps({"batch": BATCH, "expires": round(EXPIRES * _SECOND)})
        self._asked += BATCH
        await self._connection.publish(subject, body, reply=inbox)

    def _watch(self) -> None:
        """Raise what is doubted by now."""
        if self._doubt is None:
            now = self._loop.time()
            if now - self._heard_at > self._silence:
                self._stop(self._doubts(f"no relay has spoken for {self._silence:g} s"))
            elif self._mirrored > self.received and now - self._moved_at > self._silence:
                self._stop(self._doubts(f"position {self.received + 1} is there, and does not come"))
        if self._doubt is not None:
            raise self._doubt

    def _doubts(self, reason: str) -> MirrorDoubt:
        return MirrorDoubt(position=max(self.received, self._tail.head), reason=reason)

    def _stop(self, problem: HiveError) -> None:
        if self._doubt is None:
            self._doubt = problem
            # At once: what is doubted is not waited for.
            self._tail.part()
        self._wake.set()

    async def _hear(self, message: Msg) -> None:
        """A relay says how far log and mirror are."""
        try:
            said = orjson.loads(message.data)
            log_id, epoch_id = said["log_id"], said["epoch_id"]
            head, shown = int(said["head"]), int(said["mirrored"])
        except (ValueError, KeyError, TypeError):
            self._stop(self._doubts("somebody else speaks in the relay's place"))
            return
        if (log_id, epoch_id) != (self._known.meta.log_id, self._known.epoch.epoch_id):
            self._stop(self._doubts(f"a relay speaks for another log or epoch: {log_id}, epoch {said.get('epoch')}"))
        elif self._shown > head:
            self._stop(self._doubts(f"the stream is ahead of the log: {self._shown}, the log {head}"))
        else:
            self._heard_at, self._vouched, self._shown = self._loop.time(), True, 0
            self._mirrored = shown
            if shown <= self.received:
                self._moved_at = self._heard_at
            self._level = self._tail.head
            self._tail.told(head)
            self._join()
            self._wake.set()

    def _take(self, subject: str, reply: str, headers: Mapping[str, str], body: bytes) -> None:
        """A message of the stream, or what the server says of a request."""
        if self._doubt is not None:
            return
        if not reply:
            self._told(headers)
            return
        self._came += 1
        if self._asked - self._came == BATCH:
            self._wake.set()
        position = _position(reply)
        if position != self.received + 1:
            self._stop(self._doubts(f"position {self.received + 1} is missing, {position} came"))
            return
        if not self._rows:
            self._loop.call_soon(self._offer)
        self.received, self._moved_at = position, self._loop.time()
        if position <= self._tail.head:
            return  # read from the log already, or an own commit
        if BLOB in headers and is_ours(headers):
            # Its body is in the database only.
            self._offer()
            self._tail.unoffered(position)
            return
        try:
            self._rows.append(decode(position, subject[len(self._known.names.prefix) :], headers, body))
        except ValueError as problem:
            self.received = position - 1
            self._stop(self._doubts(f"message {position} is not the relay's: {problem}"))

    def _offer(self) -> None:
        rows, self._rows = self._rows, []
        if self._doubt is None:
            if rows:
                self._tail.offer(rows)
            self._join()

    def _join(self) -> None:
        """Let the tail live off what is offered, once it is as far as the log was a second ago, and touches what the tail has."""
        near = self.received >= self._level and self._tail.head >= self._begin - 1
        if self._vouched and not self._joined and near and self._doubt is None:
            self._joined = self._tail.join(self._left)
            if self._joined:
                self._feed.nats()

    def _left(self, why: str) -> None:
        """The tail reads the log again: the feed was late, or this process relays."""
        self._stop(self._doubts(why))

    def _told(self, headers: Mapping[str, str]) -> None:
        status = headers.get("Status", "")
        if status in _ENDED:
            self._asked -= int(headers.get("Nats-Pending-Messages", 0))
            self._wake.set()
        elif status != "100":
            self._stop(self._doubts(f"the server ended a request: {headers.get('Description', status)}"))


def _position(reply: str) -> int:
    """The sequence that a message's reply subject names: the old form has nine words, the new one a domain and an account more."""
    words = reply.split(".")
    at = 5 if len(words) == 9 else 7
    return int(words[at]) if len(words) > at and words[at].isdigit() else -1
