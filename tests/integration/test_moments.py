"""Moments: what `--at` takes, the position that it means, and what is said where it means none; labels."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from hive_bus import Bus, Event, Label, Moment, labels, moment_of, open_bus, set_label
from hive_bus.events import WorkflowForked, WorkflowRequested
from hive_core_db.engine import open_store
from hive_errors import MomentInvalid, NotFound
from tests.contract.making import Clock

BEGAN = datetime(2026, 11, 20, 14, 3, 20, 250_000, tzinfo=UTC)
RUN = "run-one"


class Ticked(Event, topic="moments.ticked"):
    pass


def micros(when: datetime) -> int:
    """UTC microseconds."""
    return round((when - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever reads lives in a zone that is an hour ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "HIVE-1")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """One event a minute from 15:03:20.25 local time on: 1 and 2 of nobody, 3, 5 and 6 of the run; it is 15:08:20.25 now."""
    clock = Clock()
    clock.time = micros(BEGAN)
    async with open_bus(store=await open_store(hive_url, now=clock)) as bus:
        for correlation in ("other", "other", RUN, "other", RUN, RUN):
            event = WorkflowRequested(goal="g") if correlation == RUN else Ticked()
            await bus.publish(event, stream=f"{correlation}/run", correlation_id=correlation)
            clock.pass_time(60)
        clock.pass_time(-60)
        yield bus


MOMENTS = (
    ("3", 3),
    ("4", 4),
    ("@1", 3),
    ("@3", 6),
    ("15:05", 3),
    ("15:06:19", 3),
    ("15:06:20", 4),
    ("15:06:20.2", 4),
    ("15:06:20.24", 3),
    ("14:06Z", 4),
    ("16:06+02:00", 4),
    ("2026-11-20T15:06", 4),
    ("2026-11-20 15:06", 4),
    ("2026-11-20", 6),
    (" 5 ", 5),
)
NO_MOMENTS = (
    ("0", "the log has positions 1 to 6", "hive events"),
    ("7", "the log has positions 1 to 6", "hive events"),
    ("2", "run run-one began later, at position 3", "write @1"),
    ("@0", "run run-one has events @1 to @3", "write @3"),
    ("@4", "run run-one has events @1 to @3", "write @3"),
    ("@", "the number of an event", "write @1"),
    ("@last", "the number of an event", "write @1"),
    ("15:04", "began later", "write @1"),
    ("15:01", "nothing had been recorded by 2026-11-20 15:01:59 HIVE", "recorded at 2026-11-20 15:03:20"),
    ("15:59", "yet to come", "2026-11-19T15:59"),
    ("2027-01-01", "yet to come", "it is 2026-11-20"),
    ("15:04+25:00", "less than 24 hours from UTC", "2026-11-20T14:03"),
    ("24:61", "hour must be in 0..23", "2026-11-20T14:03"),
    ("2026-13-01", "month must be in 1..12", ""),
    ("3:15", "no time", "write 14:03"),
    ("15:03.5", "no time", "14:03:20.5"),
    ("2026-11", "no time", "2026-11-20"),
    ("2026-11-2015:03", "no time", "2026-11-20T14:03"),
    ("nothing-so", "no label of run run-one is called so", "a label (before-refactor)"),
    ("", "no moment", "a position (812)"),
    ("-3", "no moment", "a position (812)"),
    ("3.5", "no moment", "a position (812)"),
    ("half past", "no moment", "a position (812)"),
)


@pytest.mark.sqlite_only("about words, not about a database")
async def test_a_moment_is_a_position(bus: Bus) -> None:
    """By number, by ordinal within the run, or by a time, which lasts until the end of what it says."""
    meant = [(given, (await moment_of(bus, given, run=RUN)).position) for given, _ in MOMENTS]
    assert meant == list(MOMENTS)


async def test_a_moment_knows_when_it_was(bus: Bus) -> None:
    """A position when its event was recorded, a time when it was over, and never later than now."""
    assert await moment_of(bus, "2") == Moment(given="2", position=2, time=micros(BEGAN + timedelta(minutes=1)))
    assert (await moment_of(bus, "15:04")).time == micros(datetime(2026, 11, 20, 14, 5, tzinfo=UTC)) - 1
    assert (await moment_of(bus, "2026-11-20")).time == bus.now()


@pytest.mark.sqlite_only("about words, not about a database")
async def test_what_means_no_moment_says_why_and_what_to_write(bus: Bus) -> None:
    """The error names the field, the value and the reason, and its hint is a form that would do."""
    for given, reason, remedy in NO_MOMENTS:
        with pytest.raises(MomentInvalid) as caught:
            await moment_of(bus, given, run=RUN, field="--until")
        assert caught.value.message.startswith(f"--until = {given}: ")
        assert reason in caught.value.reason
        assert remedy in caught.value.advice


async def test_without_a_run_there_are_no_ordinals(bus: Bus) -> None:
    """What is about the whole log counts in positions."""
    with pytest.raises(MomentInvalid, match="no run is meant"):
        await moment_of(bus, "@2")
    assert (await moment_of(bus, "2")).position == 2


async def test_an_empty_log_has_no_moment(hive_url: str) -> None:
    """Neither a position nor a time."""
    async with open_bus(hive_url) as bus:
        for given in ("1", "2026-01-01"):
            with pytest.raises(MomentInvalid) as caught:
                await moment_of(bus, given)
            assert "the log is empty" in caught.value.message + caught.value.advice


async def test_a_label_is_a_moment_wherever_one_is_asked_for(bus: Bus) -> None:
    """Set by default on the run's last event; set again, it moves; a slip is met with the name that was meant."""
    made = await set_label(bus, RUN, "before-refactor", by="ada")
    assert made == Label(run=RUN, name="before-refactor", position=6, said_at=7, by="ada")
    assert (await moment_of(bus, "before-refactor", run=RUN)).position == 6
    await set_label(bus, RUN, "before-refactor", at=await moment_of(bus, "@2", run=RUN))
    assert (await moment_of(bus, "before-refactor")).position == 5
    assert [(one.name, one.position, one.said_at) for one in await labels(bus.store.log, RUN)] == [
        ("before-refactor", 5, 8)
    ]
    with pytest.raises(MomentInvalid) as caught:
        await moment_of(bus, "before-refaktor", run=RUN)
    assert caught.value.advice == "did you mean before-refactor?"


async def test_a_label_is_its_run_s_own(bus: Bus) -> None:
    """Two runs may have one each; without a run, such a name means neither."""
    await bus.publish(WorkflowRequested(goal="g"), stream="run-two/run", correlation_id="run-two")
    first, second = await set_label(bus, RUN, "good"), await set_label(bus, "run-two", "good")
    assert (await moment_of(bus, "good", run="run-two")).position == second.position == 7
    assert (await moment_of(bus, "good", run=RUN)).position == first.position == 6
    with pytest.raises(MomentInvalid, match="6 in run run-one, 7 in run run-two"):
        await moment_of(bus, "good")


async def test_a_branch_counts_and_names_what_it_inherits(bus: Bus) -> None:
    """Its ordinals begin with its ancestors' events, and their labels hold where it shares their history."""
    await set_label(bus, RUN, "early", at=await moment_of(bus, "@1", run=RUN))
    await set_label(bus, RUN, "late")
    forked = WorkflowForked(parent=RUN, position=5)
    await bus.publish(forked, stream="branch/run", correlation_id="branch")
    ordinals = [(await moment_of(bus, f"@{number}", run="branch")).position for number in (1, 2, 3)]
    assert ordinals == [3, 5, 9]
    with pytest.raises(MomentInvalid, match="@1 to @3"):
        await moment_of(bus, "@4", run="branch")
    assert [label.name for label in await labels(bus.store.log, "branch")] == ["early"]
    await set_label(bus, "branch", "early")
    assert (await moment_of(bus, "early", run="branch")).position == 9
    assert (await moment_of(bus, "early", run=RUN)).position == 3
    assert (await moment_of(bus, "4", run="branch")).position == 4


@pytest.mark.sqlite_only("about words, not about a database")
async def test_a_label_is_never_taken_for_another_form(bus: Bus) -> None:
    """It begins with a letter and is one word."""
    for name in ("12", "@12", "14:03", "-x", "a b", "", "x" * 65, "é"):
        with pytest.raises(MomentInvalid, match="LABEL = "):
            await set_label(bus, RUN, name)


async def test_only_runs_have_labels(bus: Bus) -> None:
    """A correlation that is no run stays none."""
    await bus.publish(Ticked(), correlation_id="order-7")
    with pytest.raises(NotFound, match="belongs to no run"):
        await set_label(bus, "order-7", "here")


async def test_zones_are_those_of_the_day(bus: Bus) -> None:
    """A time that names its zone means the same everywhere."""
    there = BEGAN.astimezone(timezone(timedelta(hours=-5)))
    assert (await moment_of(bus, there.isoformat(timespec="seconds"))).position == 1
