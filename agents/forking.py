"""Forks: a new run that shares the past of another up to a position, and goes on otherwise from there.

Owns the one append that makes a branch, and what must be right before it: the position, the edits, and the commit
that a branch in git begins from. Nothing is copied. What brains make of it is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic_core import to_json

from agents.hands.places import Places
from hive_bus import Bus
from hive_bus.codec import decode
from hive_bus.envelope import encode_event
from hive_bus.events import WorkflowForked, WorkflowRequested
from hive_bus.lineage import Segment, end_of_append, lineage
from hive_bus.replay.moments import moment_of
from hive_core_db.records import AppendRequest, Conflict, NotQuiet, StoredEvent
from hive_errors import BusError, EditRefused, RunExists, RunIdInvalid

__all__ = ["Otherwise", "fork"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Otherwise:
    """What a branch does otherwise than its parent; what is left out stays as it was.

    ``models`` and ``prompts`` (system prompts) are by role, ``planner``, ``reviewer`` or ``drone``; ``""`` is all
    of them, also where a step names its own. ``approve`` is ``ask``, ``all`` or ``none``. ``unsafe`` allows what is
    not safe to do twice. ``edits`` are other bodies for inherited events, by event id or position.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_parallel: int | None = None
    review: bool | None = None
    approve: Literal["ask", "all", "none"] | None = None
    unsafe: bool = False
    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


async def fork(
    bus: Bus, places: Places, parent: str, *, at: str | None, otherwise: Otherwise, branch: str, by: str = ""
) -> int:
    """Make ``branch`` of the run ``parent`` as it was at a moment (None: now); returns the position it shares.

    The position moves to the end of the append that it lies in, so that no decision is inherited by halves; but where
    a result in that append is edited, to the result: what was decided on it there is decided anew. Raises :class:`MomentInvalid`,
    :class:`EditRefused`, :class:`RunExists`, :class:`RunIdInvalid`, :class:`NotARepository`,
    :class:`WorkspaceMissing`.
    """
    log = bus.store.log
    given = at if at is not None else str(await log.last_of_correlation(parent))
    moment = await moment_of(bus, given, run=parent)
    position = await end_of_append(log, moment.position)
    segments = await lineage(log, parent)
    edits = {}
    (last,) = await log.read(position - 1, limit=1)
    inputs: list[StoredEvent] = []
    for event, body in otherwise.edits.items():
        edited = await _edited(bus, segments, event, body, position)
        edits[edited.event_id] = dict(body)
        if edited.append_first == last.append_first and edited.decided_by is None:
            inputs.append(edited)
    last = max(inputs, default=last)
    position = last.position
    await _begin(bus, places, segments, edits, branch)
    forked = WorkflowForked(
        parent=parent,
        position=position,
        at=last.recorded_at,
        edits=edits,
        models=dict(otherwise.models),
        prompts=dict(otherwise.prompts),
        max_parallel=otherwise.max_parallel,
        review=otherwise.review,
        approve=otherwise.approve,
        allow=("unsafe",) if otherwise.unsafe else (),
    )
    new = encode_event(
        forked,
        stream=f"{branch}/run",
        correlation_id=branch,
        causation_id=last.event_id,
        source=bus.source,
        event_id=bus.ids.event_id(bus.now()),
        metadata={"by": by} if by else None,
    )
    expected = {f"{branch}/run": 0}
    request = AppendRequest(epoch=bus.writer.epoch, events=(new,), expected=expected, quiet={branch: 0})
    verdict = await bus.writer.append(request)
    if isinstance(verdict, NotQuiet):
        raise RunIdInvalid(run=branch, reason="other events have that correlation id already")
    if isinstance(verdict, Conflict):
        raise RunExists(run=branch)
    return position


async def _edited(
    bus: Bus, segments: Sequence[Segment], event: str, body: Mapping[str, Any], position: int
) -> StoredEvent:
    """The inherited event that is to have another body. Raises :class:`EditRefused`."""
    log = bus.store.log
    rows = await log.read(int(event) - 1, limit=1) if event.isdigit() else [await log.get(event)]
    row = next((row for row in rows if row is not None), None)
    if row is None or (event.isdigit() and row.position != int(event)):
        raise EditRefused(event=event, reason="the log has no such event")
    inherits = any(segment.correlation_id == row.correlation_id and segment.cut([row]) for segment in segments)
    if not inherits or row.position > position:
        raise EditRefused(event=event, reason="the branch does not inherit it")
    try:
        decode(row.topic, row.schema_version, to_json(dict(body)).decode())
    except (BusError, ValueError) as problem:
        raise EditRefused(event=event, reason=f"that is no body of {row.topic}: {problem}") from problem
    return row


async def _begin(bus: Bus, places: Places, segments: Sequence[Segment], edits: Mapping[str, Any], branch: str) -> None:
    """Fix where the branch began in git, before it is in the log: where the oldest of its ancestors did."""
    root = segments[0]
    first = root.cut(await bus.store.log.read_stream(f"{root.correlation_id}/run", limit=1))
    if not first or first[0].topic != WorkflowRequested.TOPIC:
        return
    body = edits.get(first[0].event_id)
    asked = decode(
        first[0].topic, first[0].schema_version, first[0].payload if body is None else to_json(body).decode()
    )
    assert isinstance(asked, WorkflowRequested), asked
    if base := asked.workspace.get("base"):
        repository = await places.repository(str(asked.workspace.get("path") or "."))
        await repository.begin(branch, str(base), when=datetime.fromtimestamp(bus.now() / 1_000_000, UTC))
