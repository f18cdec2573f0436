"""The state of a hive: is it well, what waits for whom, how fast it goes.

Frozen values and the sentences that say what needs somebody's eye; ``reading`` asks the database for what they are made of.
Times are UTC microseconds, durations seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dashboard.views.activity import Activity
from dashboard.views.presence import ProcessView
from hive_core_db.records import LimitState, RunWork

FAR_BEHIND: Final = 60.0
"""A group whose oldest unhandled event is older than that, in seconds, is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group: by how many positions its slowest partition is behind, and how long ago the oldest of them was recorded."""

    name: str
    partitions: int
    held_by: Mapping[str, int]
    behind: int
    oldest_seconds: float | None
    parked: int = 0

    @property
    def free(self) -> int:
        """Partitions that nobody holds."""
        return self.partitions - sum(self.held_by.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"free": self.free}


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityView:
    """A queue, by its name: what waits, what runs, and what became of it of late. ``agents`` are those online that take from it."""

    queue: str
    queued: int = 0
    delayed: int = 0
    waiting: int = 0
    running: int = 0
    oldest_wait: float | None = None
    oldest_run: float | None = None
    agents: int = 0
    per_minute: float | None = None
    activity: Activity | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"activity": None if self.activity is None else self.activity.as_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """A hive at one moment, and since ``since``. ``sampled_seconds`` is how far back the latencies reach.

    ``over_budget`` are runs that pause because their next call may need more than is left, and why.
    ``lost`` are processes whose lease ran out while nobody else was there to notice.
    """

    database: str
    log: str
    epoch: int
    head: int
    now: int
    since: int
    events_since: int
    sampled_seconds: float
    runs_since: Mapping[str, int]
    processes: tuple[ProcessView, ...] = ()
    lost: tuple[ProcessView, ...] = ()
    groups: tuple[GroupView, ...] = ()
    capabilities: tuple[CapabilityView, ...] = ()
    limits: tuple[LimitState, ...] = ()
    runs: tuple[RunWork, ...] = ()
    parked: int = 0
    over_budget: Mapping[str, str] = field(default_factory=dict)

    @property
    def events_per_second(self) -> float:
        """How fast the log grew."""
        return self.events_since / max((self.now - self.since) / 1_000_000, 1e-6)

    @property
    def attention(self) -> tuple[str, ...]:
        """What needs somebody's eye, a sentence each; none when all is well."""
        return tuple(_attention(self))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {
            "events_per_second": self.events_per_second,
            "attention": list(self.attention),
            "groups": [group.as_dict() for group in self.groups],
            "capabilities": [capability.as_dict() for capability in self.capabilities],
            "runs": [asdict(run) | {"open": run.open} for run in self.runs],
        }


def _attention(status: StatusView) -> Iterator[str]:
    for process in status.processes:
        for name, message in sorted(process.wrong.items()):
            yield f"{process.owner} (pid {process.pid}): {name}: {message}"
    for process in status.lost:
        yield f"{process.owner} (pid {process.pid} on {process.host or 'an unknown host'}) is lost, and nobody took over"
    for one in status.capabilities:
        if one.queued and not one.agents:
            yield f"{one.queued} of {one.queue} {'waits' if one.queued == 1 else 'wait'}, and nobody online can take it"
    for group in status.groups:
        late = group.oldest_seconds or 0.0
        if group.behind and late > FAR_BEHIND and group.held_by:
            yield f"group {group.name} is {group.behind} behind, the oldest for {late:.0f} s"
    for run, reason in status.over_budget.items():
        yield f"run {run} is paused, {reason}: hive budget {run}"
    if status.parked:
        yield f"{status.parked} {'key is' if status.parked == 1 else 'keys are'} parked: hive parked"
