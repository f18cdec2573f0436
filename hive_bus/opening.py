"""Opening a bus: which database, which epoch, and whether its live tail comes from NATS."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hive_bus.bus import Bus
from hive_bus.config import default_url, nats_settings
from hive_bus.epochs import announced
from hive_bus.ids import Ids
from hive_core_db.store import Store

if TYPE_CHECKING:
    from hive_bus.mirror.settings import NatsSettings


class Opening:
    """What ``open_bus`` returns: await it for a bus to close yourself, or use it as an async context."""

    def __init__(
        self,
        url: str | None,
        *,
        source: str | None,
        ids: Ids | None,
        store: Store | None,
        nats: NatsSettings | str | None,
    ) -> None:
        self._url, self._source, self._ids, self._store, self._nats = url, source, ids, store, nats
        self._bus: Bus | None = None

    def __await__(self) -> Generator[Any, None, Bus]:
        return self._open().__await__()

    async def __aenter__(self) -> Bus:
        self._bus = await self._open()
        return self._bus

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bus is not None:
            await self._bus.close()

    async def _open(self) -> Bus:
        from hive_core_db.engine import open_store

        nats = nats_settings(self._nats, beside_address=self._url is None and self._store is None)
        store = self._store or await open_store(self._url if self._url is not None else default_url())
        source = self._source if self._source is not None else _program()
        try:
            meta = await announced(store, source=source)
            head = await store.log.head()
        except BaseException:
            await store.close()
            raise
        bus = Bus(store, epoch=meta.epoch, head=head, source=source, ids=self._ids or Ids())
        await bus.start()
        if nats is not None:
            from hive_bus.mirror.feed import Feed

            _ = bus.spawn(Feed(bus, nats).run(), name="hive-bus feed")
        return bus


def open_bus(
    url: str | None = None,
    *,
    source: str | None = None,
    ids: Ids | None = None,
    store: Store | None = None,
    nats: NatsSettings | str | None = None,
) -> Opening:
    """Open the bus at an address.

    ``async with open_bus(url) as bus: ...``, or ``bus = await open_bus(url)`` and in the end ``await bus.close()``.
    ``url`` is ``sqlite:///path``; without one ``HIVE_DB``, else ``db:`` of the nearest ``hive.yaml`` upwards, else
    ``./.hive/hive.db``. ``source`` names this program in what it publishes (default: the program's name). ``ids`` and
    ``store`` replace the source of ids and the open store; the bus closes the store it was given.

    ``nats`` names the server from which the live tail comes while it is well: settings, or an address; "" is none.
    Without it ``HIVE_NATS``, and ``nats:`` of ``hive.yaml`` where the address comes from there too. It changes nothing but
    who is asked for what is new.
    """
    return Opening(url, source=source, ids=ids, store=store, nats=nats)


def _program() -> str:
    return Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else "python"
