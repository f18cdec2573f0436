"""The testing kit: what the guard catches, how virtual time passes, what makes two states the same."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from hive_bus.brains.brain import Brain, Input
from hive_bus.brains.fold import decider
from hive_bus.event import Draft, Event
from hive_bus.testing import Deadlock, SimulatedLoop, canonical_state, guarded, pure, run_simulated
from hive_errors import ImpureBrain
from tests.support.brains import Asked, LabBrain
from tests.support.patience import WITHIN

IMPURE: list[Callable[[], object]] = [
    time.time,
    time.monotonic,
    datetime.datetime.now,
    datetime.date.today,
    random.random,
    lambda: random.randint(1, 6),
    lambda: random.choice([1, 2]),
    lambda: secrets.token_hex(4),
    uuid.uuid1,
    uuid.uuid4,
    lambda: os.urandom(4),
    os.getpid,
    lambda: Path("notes").read_text(),
    lambda: Path("notes").exists(),
    lambda: list(Path("/").iterdir()),
    socket.socket,
    lambda: socket.gethostbyname("localhost"),
    lambda: threading.Thread(target=list).start(),
]


@pytest.mark.parametrize("call", IMPURE)
def test_the_guard_catches_what_no_brain_may_do(call: Callable[[], object]) -> None:
    """Clock, randomness, ids, files, sockets and threads raise, and name what was called."""
    with pytest.raises(ImpureBrain, match="brain shop called") as caught, pure("shop"):
        call()
    assert caught.value.brain == "shop"


def test_the_guard_lets_pure_code_pass() -> None:
    """Arithmetic, text, dates that are given, paths that are only names, and imports."""
    with pure():
        import colorsys  # noqa: F401 - an import reads files, and is no deed of the brain

        assert datetime.datetime.fromtimestamp(0, datetime.UTC).isoformat() == "1970-01-01T00:00:00+00:00"
        assert sorted({3, 1, 2}) == [1, 2, 3]
        assert Path("a", "b").name == "b"
        assert str(uuid.UUID(int=5)).endswith("5")
    assert time.time() > 0


class Impure(LabBrain):
    """Looks at the clock while it decides."""

    def decide(self, state: Any, record: Input) -> Sequence[Event | Draft]:
        """Depends on when it is asked."""
        return [Asked(delay=time.time())]


def test_a_guarded_brain_is_the_same_brain() -> None:
    """Name, topics and the digest of its code stay; only what is impure in it raises."""
    brain: Brain[Any] = guarded(Impure())
    assert decider(brain) == decider(Impure())
    state = brain.initial()
    record = Input(
        event=Asked(),
        event_id="1",
        topic="lab.asked",
        stream="lab",
        correlation_id="k",
        causation_id=None,
        source="x",
        occurred_at=0,
    )
    assert brain.evolve(state, record).seen == ("lab.asked",)
    with pytest.raises(ImpureBrain, match=r"time\.time"):
        brain.decide(state, record)


def test_virtual_time_passes_at_once_and_in_order() -> None:
    """A day takes no time, and who sleeps less wakes first."""

    async def main(loop: SimulatedLoop) -> list[str]:
        woken: list[str] = []

        async def sleep(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(name)

        begun = loop.now()
        async with asyncio.TaskGroup() as tasks:
            for name, seconds in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
                tasks.create_task(sleep(name, seconds))
        assert 0 <= loop.now() - begun - 86_400_000_000 < 10_000
        return woken

    before = time.monotonic()
    assert run_simulated(1, main) == ["minute", "hour", "day"]
    assert time.monotonic() - before < WITHIN


def test_a_simulation_that_cannot_go_on_says_so() -> None:
    """Everybody waits and no timer is set."""

    async def main(loop: SimulatedLoop) -> None:
        await loop.create_future()

    with pytest.raises(Deadlock, match="no timer is set"):
        run_simulated(1, main)


def test_a_simulation_has_no_threads() -> None:
    """What would need one is told how to do without."""

    async def main(loop: SimulatedLoop) -> None:
        await asyncio.to_thread(list)

    with pytest.raises(RuntimeError, match="inline=True"):
        run_simulated(1, main)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Box:
    things: dict[Any, Any] = field(default_factory=dict)
    marks: frozenset[str] = frozenset()
    colour: Colour = Colour.RED
    raw: bytes = b""
    event: Event | None = None


def test_states_are_the_same_if_their_bytes_are() -> None:
    """The order of mappings and sets does not count; every value does."""
    one = Box({"a": 1, 2: (None, True)}, frozenset("xyz"), raw=b"\x00", event=Asked())
    other = Box({2: (None, True), "a": 1}, frozenset("zyx"), raw=b"\x00", event=Asked())
    assert canonical_state(one) == canonical_state(other)
    assert canonical_state(one) != canonical_state(Box({"a": 1, 2: (None, False)}, frozenset("xyz"), raw=b"\x00"))
    assert canonical_state(1) != canonical_state("1")
    with pytest.raises(TypeError, match="no canonical form"):
        canonical_state(object())
