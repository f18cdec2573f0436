"""Which appends must not overtake each other, where the log takes more than one at a time.

Two requests that touch the same thing keep the order in which they were given. Knows rows, no topics.
"""

from __future__ import annotations

from collections.abc import Iterator

from hive_core_db.records import AppendRequest, WorkInsert


def touched(request: AppendRequest) -> Iterator[object]:
    """What the request touches: streams, correlations, work items, partitions and documents.

    A fresh event touches nothing: its stream and correlation were drawn for it, so nobody else can name them yet.
    """
    for event in request.events:
        if not event.fresh:
            yield event.stream
            yield event.correlation_id
    yield from request.expected
    yield from request.quiet
    if request.owner is not None:
        yield request.owner[:2]
    for move in request.checkpoints:
        yield move.group, move.partition
    for change in request.work:
        yield request.events[change.event_index].event_id if isinstance(change, WorkInsert) else change.work_id
    for park in request.parks:
        yield park.group, park.key
    for write in request.views:
        yield write.view, write.version, write.key
