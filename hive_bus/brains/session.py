"""What a brain's host knows of one key while it serves it. Only data: ``fold.py`` has the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from hive_bus.brains.ahead import Ahead
from hive_bus.brains.brain import State
from hive_bus.lineage import Segment


@dataclass(slots=True)
class Session(Generic[State]):
    """A key's state and how far it is handled.

    ``seen`` is the last position that this process knows of the key, ``waiting`` the last
    input among these: the key is at rest when that is handled and every decision, of which
    ``unsettled`` are on their way, is in the log. ``ahead`` is the append under way that was
    decided on before it is in the log. ``folded`` counts about how many events lie in the
    state, ``kept`` how many did in the last snapshot of it.
    """

    key: str
    state: State
    partition: int = 0
    handled: int = 0
    seen: int = 0
    waiting: int = 0
    unsettled: int = 0
    folded: int = 0
    kept: int = 0
    parked: bool = False
    inherits: tuple[Segment, ...] = ()
    ahead: Ahead[State] | None = None
