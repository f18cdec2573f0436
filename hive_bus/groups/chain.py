"""A partition's appends, one behind the other: when one is fenced, those behind it are too.

What is concluded while an append is on its way makes up the next one, so a partition
has one request in flight and a refused one is never overtaken: nothing moves the
checkpoint past what is not in the log. The chain knows requests, not handlers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hive_bus.groups.consumer import Owned
from hive_bus.surely import FIRST_WAIT, LONGEST_WAIT
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    FencedOff,
    NewEvent,
    ParkChange,
    Verdict,
    ViewWrite,
    WorkChange,
    WorkInsert,
)
from hive_errors import Fenced, HiveError, StoreError

if TYPE_CHECKING:
    from hive_bus.bus import Bus

TOGETHER: Final = 200


@dataclass(slots=True, kw_only=True)
class Link:
    """One record's conclusion: its events, what it does to parked keys and views, and where the checkpoint goes.

    ``move`` None leaves the checkpoint alone. ``refused`` is asked for another link when the
    store refuses this one for good; that one must be acceptable.
    """

    key: str
    position: int
    events: Sequence[NewEvent] = ()
    work: Sequence[WorkChange] = ()
    expected: dict[str, int] = field(default_factory=dict)
    parks: Sequence[ParkChange] = ()
    views: Sequence[ViewWrite] = ()
    move: int | None = None
    refused: Callable[[Link, Verdict], Link] | None = None


class Chain:
    """The appends of one owned partition, in the order of ``add``."""

    def __init__(self, bus: Bus, owned: Owned) -> None:
        self.owned = owned
        self.failure: Exception | None = None
        self._bus = bus
        self._waiting: deque[Link] = deque()
        self._sent: list[Link] = []
        self._alone = 0
        self._wait = FIRST_WAIT
        self._drained: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def add(self, link: Link) -> None:
        """Append the link after all those before it. Raises what the chain failed with."""
        if self.failure is not None:
            raise self.failure
        self._waiting.append(link)
        if not self._sent:
            self._send()

    async def drain(self) -> None:
        """Return when everything is in the log. Raises :class:`Fenced`, or what the store failed with."""
        if self.failure is None and (self._sent or self._waiting):
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(drained)
            await drained
        if self.failure is not None:
            raise self.failure

    def forget(self, key: str) -> None:
        """A record of ``key`` was refused: whatever was concluded of later ones waits for it, only their moves stay."""
        for link in self._waiting:
            if link.key == key:
                link.events, link.work, link.parks, link.views, link.expected = (), (), (), (), {}

    def _send(self) -> None:
        """Submit what waits, as much as goes together; after a refusal one by one."""
        while self._waiting and len(self._sent) < (1 if self._alone else TOGETHER):
            if self._sent and not _mergeable(self._sent, self._waiting[0]):
                break
            self._sent.append(self._waiting.popleft())
        if self._sent:
            self._submit(_merged(self._bus.writer.epoch, self.owned, self._sent))

    def _submit(self, request: AppendRequest) -> None:
        try:
            future = self._bus.writer.submit(request)
        except HiveError as problem:
            self._fail(problem)
            return
        future.add_done_callback(lambda done: self._settled(request, done))

    def _settled(self, request: AppendRequest, future: asyncio.Future[Verdict]) -> None:
        if future.cancelled():
            return
        problem = future.exception()
        if isinstance(problem, StoreError) and problem.retryable:
            # Busy or full: the same request again, its ids make that harmless.
            asyncio.get_running_loop().call_later(self._wait, self._submit, request)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            return
        self._wait = FIRST_WAIT
        if problem is not None:
            self._fail(problem if isinstance(problem, Exception) else RuntimeError(repr(problem)))
            return
        self._judge(request, future.result())

    def _judge(self, request: AppendRequest, verdict: Verdict) -> None:
        if isinstance(verdict, Appended):
            for move in request.checkpoints:
                self.owned.position = max(self.owned.position, move.position)
            self._next()
        elif isinstance(verdict, AlreadyThere):
            # An earlier delivery's events; what else the request wanted was not applied with them.
            self._submit(request._replace(events=(), work=(), expected={}))
        elif isinstance(verdict, FencedOff):
            self._fail(Fenced(what=verdict.what, held=verdict.held, actual=verdict.actual))
        elif len(self._sent) > 1:
            self._alone = len(self._sent)
            self._waiting.extendleft(reversed(self._sent))
            self._sent.clear()
            self._send()
        else:
            self._refused(self._sent[0], verdict)

    def _refused(self, link: Link, verdict: Verdict) -> None:
        if link.refused is None:
            self._fail(StoreRefused(str(verdict)))
            return
        self._sent = [link.refused(link, verdict)]
        self._submit(_merged(self._bus.writer.epoch, self.owned, self._sent))

    def _next(self) -> None:
        self._alone = max(0, self._alone - len(self._sent))
        self._sent.clear()
        self._send()
        if not self._sent:
            self._release()

    def _fail(self, problem: Exception) -> None:
        self.failure = problem
        self.owned.moving = self.owned.position
        self._sent.clear()
        self._waiting.clear()
        self._release()

    def _release(self) -> None:
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        self._drained.clear()


class StoreRefused(Exception):
    """The store refused what cannot be refused: a mistake of the hive's own."""


def _mergeable(links: Sequence[Link], link: Link) -> bool:
    """Whether the link can share their append: it must not expect the version of a stream that they add to."""
    return not link.expected or not any(event.stream in link.expected for other in links for event in other.events)


def _merged(epoch: int, owned: Owned, links: Sequence[Link]) -> AppendRequest:
    events: list[NewEvent] = []
    work: list[WorkChange] = []
    expected: dict[str, int] = {}
    for link in links:
        for change in link.work:
            if isinstance(change, WorkInsert):
                work.append(change._replace(event_index=change.event_index + len(events)))
            else:
                work.append(change)
        events += link.events
        expected |= link.expected
    moves = [link.move for link in links if link.move is not None]
    return AppendRequest(
        epoch=epoch,
        events=tuple(events),
        expected=expected,
        owner=owned.owner,
        checkpoints=(owned.move(max(moves)),) if moves else (),
        work=tuple(work),
        parks=tuple(change for link in links for change in link.parks),
        views=tuple(view for link in links for view in link.views),
    )
