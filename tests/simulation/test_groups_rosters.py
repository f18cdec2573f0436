"""One look for all groups of a process: how often it is taken, and that nobody waits long for a change. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from hive_bus.bus import Bus
from hive_bus.groups.balance import ADOPT_SECONDS, Balance
from hive_bus.groups.member import GroupMember, Owned
from hive_bus.groups.roster import CALM_SECONDS, SETTLING_SECONDS, STIRRED_SECONDS
from hive_bus.ids import Ids
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.engine import open_store
from hive_core_db.records import Partition, Roster
from tests.support.simulated import seeded

GROUPS = 6


class Nothing:
    """A consumer that does nothing."""

    async def assigned(self, partition: Owned) -> None: ...

    async def revoked(self, partition: Owned) -> None: ...

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None: ...


class Process:
    """A process on the simulated loop with six groups of its own; counts its looks, one entry for each with its time."""

    def __init__(self, loop: SimulatedLoop, path: Path, name: str) -> None:
        self.looks: list[tuple[float, int]] = []
        self.members: list[GroupMember] = []
        self._loop, self._path, self._name = loop, path, name

    async def run(self) -> None:
        """Be in the groups until cancelled."""
        store = await open_store(str(self._path), now=self._loop.now, inline=True, durable=False)
        checkpoints = store.checkpoints
        rosters = checkpoints.rosters

        async def counted(groups: Sequence[str]) -> dict[str, Roster]:
            self.looks.append((self._loop.time(), len(groups)))
            return await rosters(groups)

        checkpoints.rosters = counted  # type: ignore[method-assign]
        bus = Bus(store, epoch=1, head=await store.log.head(), source=self._name, ids=Ids(1))
        await bus.start()
        self.members = [
            GroupMember(bus, group=f"g{n}", patterns=(), key="stream", consumer=Nothing()) for n in range(GROUPS)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for member in self.members:
                    tasks.create_task(member.run())
        finally:
            await bus.close()

    def held(self) -> int:
        """How many partitions it holds."""
        return sum(len(member.owned) for member in self.members)

    def seen(self, since: float) -> list[int]:
        """How many groups each look since a moment was for."""
        return [groups for time, groups in self.looks if time >= since]


def play(path: Path) -> dict[str, object]:
    """One process alone for a while, then another joins it, and leaves again."""

    async def scene(loop: SimulatedLoop) -> dict[str, object]:
        found: dict[str, object] = {}
        one, two = Process(loop, path, "one"), Process(loop, path, "two")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(one.run())
            await asyncio.sleep(10)
            calm = loop.time()
            await asyncio.sleep(100)
            found["calm"] = one.seen(calm)
            second = tasks.create_task(two.run())
            await asyncio.sleep(CALM_SECONDS + 4 * STIRRED_SECONDS)
            found["shared"] = (one.held(), two.held())
            second.cancel()
            await asyncio.sleep(CALM_SECONDS + 4 * STIRRED_SECONDS)
            found["alone again"] = one.held()
            await asyncio.sleep(SETTLING_SECONDS + 1)
            calm = loop.time()
            await asyncio.sleep(100)
            found["calm again"] = one.seen(calm)
            first.cancel()
        return found

    async def main(loop: SimulatedLoop) -> dict[str, object]:
        with seeded(loop):
            return await scene(loop)

    return run_simulated(5, main)


def test_one_look_a_second_for_all_groups(tmp_path: Path) -> None:
    """While nothing happens a process looks once a second, at all of its groups together; a join and a leave settle at once."""
    found = play(tmp_path / "hive.db")
    for calm in (found["calm"], found["calm again"]):
        assert isinstance(calm, list)
        assert len(calm) <= 101
        assert set(calm) == {GROUPS}
    assert found["shared"] == (8 * GROUPS, 8 * GROUPS)
    assert found["alone again"] == 16 * GROUPS


def roster(holders: Sequence[str | None], *members: str) -> Roster:
    """A group with these holders of its partitions."""
    rows = [Partition(group="g", number=n, position=0, lease_id=lease, fence=1) for n, lease in enumerate(holders)]
    return Roster(members=members, partitions=tuple(rows))


def test_what_nobody_takes_is_adopted_after_a_while() -> None:
    """A partition beyond the share stays free for those whose share it is; when they do not come, it is taken all the same."""
    balance = Balance("me")
    seen = roster(["me", None], "me", "other")
    assert [row.number for row in balance.plan(seen, {0}, 0.0).adopt] == []
    assert [row.number for row in balance.plan(seen, {0}, ADOPT_SECONDS).adopt] == [1]
    assert balance.plan(seen, {0, 1}, ADOPT_SECONDS).give_up == [], "what was adopted is no surplus"
    assert balance.plan(roster(["me", "me"], "me", "third"), {0, 1}, ADOPT_SECONDS).give_up == [1], (
        "until members change"
    )


def test_what_was_refused_is_never_taken() -> None:
    """Events newer than its code: neither as a share nor as an orphan."""
    balance = Balance("me", refused={0})
    for now in (0.0, ADOPT_SECONDS):
        plan = balance.plan(roster([None, None], "me"), (), now)
        assert [row.number for row in (*plan.take, *plan.adopt)] == [1]
