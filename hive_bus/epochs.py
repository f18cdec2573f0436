"""A new epoch of the log is said in the log: `system.epoch_started`, once, by whoever opens the bus first.

Why an epoch begins and where is floor 2's business (`hive_core_db.epochs`); this module only tells it.
"""

from __future__ import annotations

from typing import Final

from hive_bus.envelope import encode_event
from hive_bus.events.system import EpochStarted
from hive_bus.ids import derived_event_id
from hive_bus.telemetry import get_logger
from hive_core_db.records import AlreadyThere, Appended, AppendRequest, Epoch, LogMeta, NewEvent
from hive_core_db.store import EventLog, Store
from hive_errors import EpochOver

STREAM: Final = "system"

_log = get_logger(__name__)


async def announced(store: Store, *, source: str) -> LogMeta:
    """Return what the log is, once its present epoch is announced in it; the first epoch of a log needs no word.

    The event's id comes from the epoch's, so that it is appended once, however many processes open the log.
    """
    while True:
        meta = await store.log.meta()
        epochs = await store.log.epochs() if meta.epoch > 1 else []
        if len(epochs) < 2 or await store.log.get(_event_id(epochs[-1])) is not None:
            return meta
        (verdict,) = await store.log.append([AppendRequest(epoch=meta.epoch, events=(_event(epochs[-1], source),))])
        if isinstance(verdict, Appended | AlreadyThere):
            _log.warning("epoch.started", epoch=meta.epoch, first_position=epochs[-1].first_position)
            return meta
        # Yet another epoch began between the question and the append: that one is announced.


async def same_epoch(store: Store, epoch: int) -> None:
    """A new epoch closes every lease: whoever lost one looks whether it may begin again at all.

    Raises :class:`EpochOver` if the log is in another epoch than ``epoch``.
    """
    meta = await store.log.meta()
    if meta.epoch != epoch:
        raise EpochOver(url=store.url, held=epoch, actual=meta.epoch)


async def distance(log: EventLog, after: int, until: int) -> int:
    """How many events lie above ``after`` and up to ``until``: what an epoch jumped over is none."""
    if until <= after:
        return 0
    count, counted = until - after, after
    for epoch in (await log.epochs())[1:]:
        if after < epoch.first_position <= until:
            # An epoch in which nothing was recorded is jumped over whole: what was left out already is not left out again.
            last = max(counted, await log.position_at(epoch.began_at - 1))
            counted = epoch.first_position - 1
            count -= counted - last
    return count


def _event(epoch: Epoch, source: str) -> NewEvent:
    body = EpochStarted(epoch=epoch.number, first_position=epoch.first_position, reason=epoch.reason)
    return encode_event(
        body,
        stream=STREAM,
        correlation_id=STREAM,
        event_id=_event_id(epoch),
        source=source,
        causation_id=None,
        occurred_at=epoch.began_at,
        metadata=None,
        fresh=False,
    )


def _event_id(epoch: Epoch) -> str:
    return derived_event_id(epoch.began_at, "epoch", epoch.epoch_id)
