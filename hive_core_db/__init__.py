"""Floor 2: where events are kept: schema, log, checkpoints, work queue, leases, blobs, migrations.

Knows no topics and no event classes. `open_store(url)` opens a database; the rows
that cross this floor are in `hive_core_db.records`, the ports in `hive_core_db.store`,
the reasons in `doc.md`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hive_core_db.admin import backup, begin_epoch, check, copy, restore, stats, upgrade
    from hive_core_db.engine import open_store
    from hive_core_db.records import AppendRequest, NewEvent, StoredEvent
    from hive_core_db.store import Store

_HOMES = {
    "AppendRequest": "records",
    "NewEvent": "records",
    "Store": "store",
    "StoredEvent": "records",
    "backup": "admin",
    "begin_epoch": "admin",
    "check": "admin",
    "copy": "admin",
    "open_store": "engine",
    "restore": "admin",
    "stats": "admin",
    "upgrade": "admin",
}

__all__ = [
    "AppendRequest",
    "NewEvent",
    "Store",
    "StoredEvent",
    "backup",
    "begin_epoch",
    "check",
    "copy",
    "open_store",
    "restore",
    "stats",
    "upgrade",
]


def __getattr__(name: str) -> object:
    # Lazily: who imports an error or a row does not load a driver.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
