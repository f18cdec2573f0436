"""States of the past: what a brain knew when it had handled a position, and any state as plain values.

A brain is the state it had when it had handled P, with its decisions on events up to P. It is folded from the log,
so it can be asked of any run, whether or not anybody hosts the brain. Nothing is decided here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import TYPE_CHECKING, Any

from hive_bus.brains.brain import Brain, State
from hive_bus.brains.fold import Folder, within_run
from hive_bus.brains.past import Step, lives
from hive_bus.groups.parking import discarded
from hive_bus.lineage import lineage, read_branch, run_of
from hive_core_db.store import EventLog

if TYPE_CHECKING:
    from hive_bus.bus import Bus


async def state_at(bus: Bus, brain: Brain[State], key: str, *, at: int) -> State:
    """The state of ``key`` when ``brain`` had handled position ``at``, with its decisions on events up to there.

    Of a branch before it was forked, it is its ancestor's. What people discarded for the brain is left out. Raises
    what the brain raises on an event that it cannot fold.
    """
    left_out = await discarded(bus, f"brain/{brain.name}".__eq__)
    folder, state = Folder(brain), brain.initial()
    async for life in lives(brain, bus.store.log, await _key_then(bus.store.log, key, at), upto=at):
        if life.forked is not None:
            state = brain.inherit(state, folder.seen(life.forked))
        async for page, steps in life.pages():
            for cause, decisions in steps or [Step(cause, ()) for cause in page]:
                if cause.position > at:
                    return state
                if cause.position not in left_out:
                    state = folder.fold(state, cause)
                for decision in decisions:
                    state = folder.fold(state, decision)
    return state


async def keys_at(log: EventLog, brain: Brain[Any], run: str, *, at: int) -> list[str]:
    """The keys under which ``brain`` folds a run, as of position ``at``: the run itself, or its streams."""
    if brain.keyed_by == "correlation":
        return [run]
    names: dict[str, None] = {}
    async for page in read_branch(log, await lineage(log, run), upto=at):
        names |= {name: None for row in page if (name := within_run(row)).startswith(brain.stream_prefix)}
    return [f"{run}/{name}" for name in names]


def plain(value: object) -> Any:
    """A state, or a part of one, as JSON values that people read: dataclasses and models by their fields, sets sorted."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    names = getattr(type(value), "model_fields", None) or getattr(type(value), "_fields", None)
    if names is not None:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item) for item in value]
    return str(value)


async def _key_then(log: EventLog, key: str, at: int) -> str:
    """The key's name in the run that there was at ``at``: a branch's ancestor before it was forked."""
    run = run_of(key)
    then = next((part for part in await lineage(log, run) if not part.ends_before(at)), None)
    return key if then is None else then.correlation_id + key.removeprefix(run)
