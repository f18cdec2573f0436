"""Hypothesis drives the log and the queue against a list in memory: verdicts, rows and items must be the model's."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import event as note
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    Corrupt,
    Ended,
    FencedOff,
    NewEvent,
    NotQuiet,
    Verdict,
    WorkCancel,
    WorkChange,
    WorkClaim,
    WorkEnd,
    WorkInsert,
    WorkRetry,
)
from hive_core_db.store import Store
from tests.contract.making import Clock, event
from tests.support.postgres import Databases

STREAMS = ("a", "b", "c")
RUNS = ("x", "y")
T = TypeVar("T")


@dataclass
class Row:
    """An event of the model."""

    new: NewEvent
    position: int
    version: int
    append: int


@dataclass
class Item:
    """A work item of the model."""

    state: str
    fence: int = 0
    attempt: int = 0
    cancelled: bool = False


@dataclass
class Model:
    """The log as a list, the queue as a dict."""

    rows: list[Row] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)
    open_leases: set[str] = field(default_factory=set)

    def version(self, stream: str) -> int:
        """Return how many events the stream has."""
        return sum(row.new.stream == stream for row in self.rows)

    def last(self, run: str) -> int:
        """Return the last position of a correlation."""
        return max((row.position for row in self.rows if row.new.correlation_id == run), default=0)

    def judge(self, request: AppendRequest) -> Verdict:
        """Give the verdict, and apply what is accepted."""
        known = self.already(request.events)
        if known is not None:
            return known
        if request.epoch != 1:
            return FencedOff("epoch", request.epoch, 1)
        items = {name: Item(**vars(item)) for name, item in self.items.items()}
        verdicts = [self.change(items, change, request.events) for change in request.work]
        for kind in (FencedOff, Ended):
            for found in verdicts:
                if isinstance(found, kind):
                    return found
        for stream, expected in request.expected.items():
            if self.version(stream) != expected:
                return Conflict(stream, expected, self.version(stream))
        for run, after in request.quiet.items():
            if self.last(run) > after:
                return NotQuiet(run, self.last(run))
        self.items = items
        first = len(self.rows) + 1
        for new in request.events:
            self.rows.append(Row(new, len(self.rows) + 1, self.version(new.stream) + 1, first))
        return Appended(first, len(self.rows), ())

    def already(self, events: tuple[NewEvent, ...]) -> Verdict | None:
        """Return what the ids say: all known as they are, some known, none."""
        found = [next((row for row in self.rows if row.new.event_id == new.event_id), None) for new in events]
        if not any(found):
            ids = [new.event_id for new in events]
            twice = [name for n, name in enumerate(ids) if name in ids[:n]]
            return Corrupt(twice[0]) if twice else None
        if found[0] is None or None in found:
            return Corrupt("")
        for offset, (new, row) in enumerate(zip(events, found, strict=True)):
            assert row is not None
            same = (new.stream, new.topic, new.payload) == (row.new.stream, row.new.topic, row.new.payload)
            if not same or row.position != found[0].position + offset or row.append != found[0].append:
                return Corrupt("")
        return AlreadyThere(found[0].position, found[0].position + len(events) - 1)

    def change(self, items: dict[str, Item], change: WorkChange, events: tuple[NewEvent, ...]) -> Verdict | None:
        """Apply one change of the queue, or say why not."""
        if isinstance(change, WorkInsert):
            items[events[change.event_index].event_id] = Item(change.state)
            return None
        item = items.get(change.work_id)
        if isinstance(change, WorkCancel):
            if item is not None:
                item.cancelled = True
            return None
        if item is None:
            return Ended(change.work_id)
        fenced = FencedOff("", change.fence or 0, item.fence)
        match change:
            case WorkClaim(fence=fence, lease_id=lease):
                if item.state != "ready" or item.cancelled or item.fence != fence or lease not in self.open_leases:
                    return fenced
                item.state, item.fence, item.attempt = "claimed", fence + 1, item.attempt + 1
            case WorkEnd(work_id=name, fence=fence):
                if fence is not None and item.fence != fence:
                    return fenced
                del items[name]
            case WorkRetry(fence=fence, delay=delay):
                if item.state != "claimed" or item.fence != fence:
                    return fenced
                item.state, item.fence = ("delayed" if delay else "ready"), fence + 1
        return None


def comparable(found: Verdict) -> tuple[object, ...]:
    """Return what a verdict says, without words that the model does not choose."""
    match found:
        case Appended(first=first, last=last):
            return "appended", first, last
        case FencedOff(held=held, actual=actual):
            return "fenced", held, actual
        case Corrupt():
            return ("corrupt",)
        case _:
            return type(found).__name__, *found


class LogMachine(RuleBasedStateMachine):
    """Builds batches of requests, sends them to two stores on one database, and compares."""

    @initialize()
    def open_stores(self) -> None:
        """Make a new database, two stores on it, and two leases of which one is closed."""
        self.loop = asyncio.new_event_loop()
        self.url = self.made()
        self.clock = Clock()
        self.stores = [self.opened(), self.opened()]
        self.model = Model()
        self.asked: list[tuple[NewEvent, ...]] = []
        self.known: list[str] = []
        self.leases = [self.run(self.stores[0].leases.open(name, ttl=10**12)).lease_id for name in ("one", "two")]
        self.run(self.stores[1].leases.close(self.leases[1]))
        self.model.open_leases = {self.leases[0]}

    def made(self) -> str:
        """Make a file."""
        self.directory = tempfile.mkdtemp()
        return f"sqlite:///{self.directory}/hive.db"

    def gone(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)

    def opened(self) -> Store:
        """Open a store on it, on this loop alone."""
        return self.run(open_store(self.url, now=self.clock, inline=True, durable=False))

    def run(self, task: Coroutine[Any, Any, T]) -> T:
        """Run to its end."""
        return self.loop.run_until_complete(task)

    @rule(data=st.data(), which=st.integers(0, 1), seconds=st.sampled_from([0.0, 1.0, -30.0]))
    def send(self, data: st.DataObject, which: int, seconds: float) -> None:
        """Send a batch by either store, while the clock goes on or back."""
        self.clock.pass_time(seconds)
        kinds = st.sampled_from([self.new, self.new, self.again, self.mixed, self.work, self.work, self.work])
        batch = [build(data) for build in data.draw(st.lists(kinds, min_size=1, max_size=6))]
        found = self.run(self.stores[which].log.append(batch))
        wanted = [self.model.judge(one) for one in batch]
        for one in wanted:
            note(type(one).__name__)
        assert [comparable(one) for one in found] == [comparable(one) for one in wanted]

    def events(self, data: st.DataObject, most: int) -> tuple[NewEvent, ...]:
        """Make new events, small or large."""
        values = st.tuples(st.sampled_from(STREAMS), st.sampled_from(RUNS), st.sampled_from([1] * 9 + [70_000]))
        drawn = data.draw(st.lists(values, max_size=most))
        return tuple(event(stream, correlation_id=run, payload="x" * size) for stream, run, size in drawn)

    def new(self, data: st.DataObject) -> AppendRequest:
        """Ask for new events under conditions that are right or nearly, some of them intents."""
        events = self.events(data, 3)
        near = st.dictionaries(st.sampled_from(STREAMS), st.sampled_from([0, 0, 1, -1]), max_size=1)
        late = st.dictionaries(st.sampled_from(RUNS), st.sampled_from([0, 0, -1]), max_size=1)
        work = [
            WorkInsert(event_index=n, queue="q", state="ready") for n in range(len(events)) if data.draw(st.booleans())
        ]
        self.known += [events[insert.event_index].event_id for insert in work]
        self.asked.append(events)
        return AppendRequest(
            epoch=data.draw(st.sampled_from([1] * 15 + [2])),
            events=events,
            expected={stream: max(0, self.model.version(stream) + off) for stream, off in data.draw(near).items()},
            quiet={run: max(0, self.model.last(run) + off) for run, off in data.draw(late).items()},
            work=tuple(work),
        )

    def again(self, data: st.DataObject) -> AppendRequest:
        """Ask for what was asked for before."""
        events = data.draw(st.sampled_from(self.asked)) if self.asked else ()
        return AppendRequest(epoch=1, events=events, expected=data.draw(st.sampled_from([{}, {"a": 0}])))

    def mixed(self, data: st.DataObject) -> AppendRequest:
        """Ask for events of several earlier requests, known or not, perhaps with other content."""
        earlier = [new for events in self.asked for new in events]
        events: list[NewEvent] = data.draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        differs: bool = data.draw(st.booleans())
        if events and differs:
            events[-1] = events[-1]._replace(topic="thing.differs")
        return AppendRequest(epoch=1, events=(*events, *self.events(data, 1)))

    def work(self, data: st.DataObject) -> AppendRequest:
        """Claim, end, retry or cancel an item, with a fence that is right or nearly."""
        if not self.known:
            return AppendRequest(epoch=1)
        lease = self.leases[data.draw(st.sampled_from([0, 0, 0, 1]))]
        changes: list[WorkChange] = []
        for _ in range(data.draw(st.integers(1, 2))):
            name = data.draw(st.sampled_from(self.known))
            fence = self.model.items.get(name, Item("gone")).fence + data.draw(st.sampled_from([0, 0, 0, 1, -1]))
            made: list[tuple[WorkChange, ...]] = [
                (WorkClaim(work_id=name, fence=fence, lease_id=lease),),
                (WorkClaim(work_id=name, fence=fence, lease_id=lease),),
                (WorkEnd(work_id=name, fence=fence),),
                (WorkEnd(work_id=name, fence=None),),
                (WorkRetry(work_id=name, fence=fence, delay=0),),
                (WorkRetry(work_id=name, fence=fence, delay=5),),
                (WorkCancel(work_id=name),),
                (WorkClaim(work_id=name, fence=fence, lease_id=lease), WorkEnd(work_id=name, fence=fence + 1)),
            ]
            changes += data.draw(st.sampled_from(made))
        return AppendRequest(epoch=1, events=self.events(data, 1), work=tuple(changes))

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        """Close one store and open it again: nothing that matters is only in memory."""
        self.run(self.stores[which].close())
        self.stores[which] = self.opened()

    @invariant()
    def same(self) -> None:
        """The log is the list, the queue is the dict, for both stores."""
        if not hasattr(self, "stores"):
            return
        wanted = [
            (r.position, r.new.event_id, r.new.stream, r.version, r.append, r.new.payload) for r in self.model.rows
        ]
        for store in self.stores:
            rows = self.run(store.log.read(0, limit=10_000))
            assert [(r.position, r.event_id, r.stream, r.version, r.append_first, r.payload) for r in rows] == wanted
            assert [row.recorded_at for row in rows] == sorted(row.recorded_at for row in rows)
        items = {
            i.work_id: (i.state, i.fence, i.attempt, i.cancel_requested) for i in self.run(self.stores[0].work.items())
        }
        assert items == {name: (i.state, i.fence, i.attempt, i.cancelled) for name, i in self.model.items.items()}

    def teardown(self) -> None:
        """Audit the database, and remove it."""
        if hasattr(self, "stores"):
            for store in self.stores:
                self.run(store.close())
            assert list(map(str, audit(self.url))) == []
            self.gone()
            self.loop.close()


class PostgresMachine(LogMachine):
    """The same on PostgreSQL."""

    databases: ClassVar[Databases]

    def made(self) -> str:
        """Take a new log."""
        return self.databases.new()

    def gone(self) -> None:
        """Give it back."""
        self.databases.drop(self.url)

    def opened(self) -> Store:
        """Open a store on it."""
        return self.run(open_store(self.url, now=self.clock))


@pytest.fixture(scope="module")
def _logs(new_logs: Callable[[int], Databases]) -> None:
    PostgresMachine.databases = new_logs(18)


# How many examples is the profile's choice: a soak runs fifty times as many.
PLAN = settings(stateful_step_count=12, deadline=None)
TestLogModel = pytest.mark.timeout(1200)(LogMachine.TestCase)
TestLogModel.settings = PLAN
# A fifth of them on PostgreSQL, where each takes several times as long.
TestLogModelOnPostgres = pytest.mark.usefixtures("_logs")(pytest.mark.timeout(1200)(PostgresMachine.TestCase))
TestLogModelOnPostgres.settings = settings(PLAN, max_examples=PLAN.max_examples // 5)
