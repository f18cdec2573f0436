"""The judge: gives each request of a batch its verdict, in order, as if committed apart.

Owns the order of verdicts and the rows of the log as they will be. What work items,
owners and documents have to say is in `work_changes`, `ownership` and `view_changes`.
Pure: stored values come from a `Facts`, time from the caller; a backend writes what
is staged here, or throws it away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hive_core_db.judge.facts import Facts, KnownEvent
from hive_core_db.judge.ownership import Ownership
from hive_core_db.judge.view_changes import ViewChanges
from hive_core_db.judge.work_changes import WorkChanges
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    Corrupt,
    FencedOff,
    NewEvent,
    NotQuiet,
    StoredEvent,
    Verdict,
)

# Bodies above this many bytes lie in `blobs`; the row keeps their digest.
INLINE_LIMIT: Final = 64 * 1024
PAYLOAD_LIMIT: Final = 16 * 1024 * 1024
# A text of so many characters cannot have more than INLINE_LIMIT bytes: four is the most that one takes.
SURELY_SMALL: Final = INLINE_LIMIT // 4

_new_row: Callable[[type[StoredEvent], tuple[object, ...]], StoredEvent] = tuple.__new__
_new_verdict: Callable[[type[Appended], tuple[object, ...]], Appended] = tuple.__new__


class Batch:
    """The log as it will be when the requests judged so far are committed.

    ``next`` is the position that the next event gets, ``recorded_at`` is when, ``now`` is the time of work
    items and parked keys. ``versions`` and ``topics`` hold what is known already, and learn. With ``look`` every id
    is looked up first; else only those of a request that would be refused.

    Staged for the backend: ``rows`` (those at the indexes of ``lean_rows`` are stored without their payload),
    ``refs`` (blobs and the positions that name them), ``new_topics``, ``parks``, and ``work``, ``ownership``, ``views``.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        epoch: int,
        next: int,  # noqa: A002 - the word that the log has for it
        recorded_at: int,
        now: int,
        versions: dict[str, int],
        topics: set[str],
        look: bool,
    ) -> None:
        self._facts = facts
        self._look = look
        self._versions = versions
        self._topics = topics
        self._epoch = epoch
        self.next = self._start = next
        self._now = recorded_at
        self._correlations: dict[str, int] = {}
        self._correlations_seen = 0
        self._staged: dict[str, StoredEvent] = {}
        self.rows: list[StoredEvent] = []
        self.lean_rows: list[tuple[int, StoredEvent]] = []
        self.refs: list[tuple[str, int]] = []
        self.new_topics: list[str] = []
        self.parks: list[AppendRequest] = []
        self.work = WorkChanges(facts, now)
        self.ownership = Ownership(facts)
        self.views = ViewChanges(facts)

    def judge(self, request: AppendRequest) -> Verdict:
        """Give the request its verdict; if it is accepted, everything in it is staged."""
        if self._look and (known := self._known(request.events)) is not None:
            stale = self.ownership.judge(request, self.next) if isinstance(known, Corrupt) and request.owner else None
            return stale if isinstance(stale, FencedOff) else known
        if request.epoch != self._epoch:
            return self._known_or(request, FencedOff("epoch", request.epoch, self._epoch))
        # Spelled out, not gathered first: most requests are plain events, and this is asked of each.
        if (
            request.work or request.checkpoints or request.expected or request.quiet
            or request.owner or request.parks or request.views or request.blobs
        ):  # fmt: skip
            return self._judge_conditions(request)
        return self._stage(request.events)

    def _judge_conditions(self, request: AppendRequest) -> Verdict:
        first = self.next
        ownership = self.ownership.judge(request, first + len(request.events) - 1)
        if isinstance(ownership, FencedOff):
            return self._known_or(request, ownership)
        views = self.views.judge(request.views)
        if isinstance(views, FencedOff):
            return self._known_or(request, views)
        for digest in request.blobs:
            if not self._facts.blob(digest):
                return self._known_or(request, FencedOff(f"blob {digest}, which is not stored", 0, 0))
        work = self.work.judge(request, first)
        if isinstance(work, tuple):
            return self._known_or(request, work)
        for stream, expected in request.expected.items():
            actual = self._version(stream)
            if actual != expected:
                return self._known_or(request, Conflict(stream, expected, actual))
        for correlation, after in request.quiet.items():
            last = self._last_of(correlation)
            if last > after:
                return self._known_or(request, NotQuiet(correlation, last))
        self.ownership.accept(ownership)
        self.views.accept(views)
        self.work.accept(work)
        if request.parks:
            self.parks.append(request)
        self.refs.extend((digest, first) for digest in request.blobs)
        return self._stage(request.events)

    def _stage(self, events: tuple[NewEvent, ...]) -> Appended:
        rows = self.rows
        versions = self._versions
        topics = self._topics
        now = self._now
        first = position = self.next
        for event in events:
            (
                event_id, stream, topic, correlation_id, causation_id, cause_position, decided_by, source,
                schema_version, payload, metadata, digest, occurred_at, fresh,
            ) = event  # fmt: skip
            version = versions.get(stream)
            if version is None:
                version = 0 if fresh and not self._look else self._version(stream)
            versions[stream] = version = version + 1
            if cause_position is not None and cause_position < 0:
                # The cause is event i of this very append, named as -1 - i: its position is only known here.
                cause_position = first - 1 - cause_position
            row = _new_row(
                StoredEvent,
                (
                    position, event_id, stream, version, topic, correlation_id, causation_id, cause_position, decided_by,
                    source, schema_version, payload, metadata, digest, first,
                    now if occurred_at is None else occurred_at, now,
                ),
            )  # fmt: skip
            rows.append(row)
            position += 1
            if topic not in topics:
                topics.add(topic)
                self.new_topics.append(topic)
            if len(payload) > SURELY_SMALL and len(payload.encode()) > INLINE_LIMIT:
                self.lean_rows.append((len(rows) - 1, row._replace(payload=None)))  # type: ignore[arg-type]
                self.refs.append((digest, row.position))
        self.next = position
        return _new_verdict(Appended, (first, position - 1, tuple(rows[first - self._start :])))

    def _version(self, stream: str) -> int:
        version = self._versions.get(stream)
        if version is None:
            version = self._versions[stream] = self._facts.version(stream)
        return version

    def _last_of(self, correlation: str) -> int:
        for row in self.rows[self._correlations_seen :]:
            self._correlations[row.correlation_id] = row.position
        self._correlations_seen = len(self.rows)
        last = self._correlations.get(correlation)
        if last is None:
            last = self._facts.last_of(correlation)
        return last

    def _known_or(self, request: AppendRequest, verdict: Verdict) -> Verdict:
        # A repetition whose first try was committed is refused for what that try itself did: the ids know better.
        if self._look:
            return verdict
        known = self._known(request.events)
        # A stale owner whose successor decided otherwise on the same cause: that is its fence's affair, not the log's.
        if isinstance(known, Corrupt) and isinstance(verdict, FencedOff) and request.owner:
            return verdict
        return known or verdict

    def _known(self, events: tuple[NewEvent, ...]) -> AlreadyThere | Corrupt | None:
        """Look the ids up, in the log and in this batch: all known as they are, some known, or none."""
        if not events:
            return None
        staged = self._staged
        staged.update({row.event_id: row for row in self.rows[len(staged) :]})
        found: list[KnownEvent | None] = []
        for event in events:
            row = staged.get(event.event_id)
            if row is None:
                found.append(self._facts.known(event.event_id))
            else:
                found.append(KnownEvent(row.position, row.append_first, row.stream, row.topic, row.digest))
        if not any(found):
            ids = {event.event_id for event in events}
            return None if len(ids) == len(events) else Corrupt(_first_repeated(events))
        opening = found[0]
        for offset, (event, stored) in enumerate(zip(events, found, strict=True)):
            if opening is None or stored is None:
                return Corrupt(next(e.event_id for e, s in zip(events, found, strict=True) if s is not None))
            position, append_first, stream, topic, digest = stored
            apart = position != opening[0] + offset or append_first != opening[1]
            if apart or stream != event.stream or topic != event.topic or digest != event.digest:
                return Corrupt(event.event_id)
        assert opening is not None
        return AlreadyThere(opening[0], opening[0] + len(events) - 1)


def _first_repeated(events: tuple[NewEvent, ...]) -> str:
    seen: set[str] = set()
    for event in events:
        if event.event_id in seen:
            return event.event_id
        seen.add(event.event_id)
    raise AssertionError("no id is repeated")
