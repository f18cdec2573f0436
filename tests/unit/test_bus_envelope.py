"""Envelopes, the work that intents ask for, and what may not be published into a run."""

from __future__ import annotations

from typing import Any

import pytest

from hive_bus import events
from hive_bus.codec import digest
from hive_bus.effects import CancelRequested, Intent, WorkPolicy
from hive_bus.envelope import encode_event, intent_work, is_users, work_changes
from hive_bus.event import Draft, Event
from hive_bus.guards import guard_of
from hive_core_db.records import NewEvent, WorkCancel, WorkInsert
from hive_errors import PayloadRefused


class Fetch(Intent, topic="envelope_test.fetch_requested", results=("envelope_test.fetched",)):
    delay: float = 0.0

    def work(self) -> WorkPolicy:
        """Every field of the policy is set."""
        return WorkPolicy(
            labels=("net", "fetch"),
            delay=self.delay,
            priority=3,
            cost=2.5,
            waiting_timeout=1.5,
            running_timeout=2.0,
            silent_timeout=0.25,
            total_timeout=60.0,
            preferred="ada",
            hold_out=0.5,
        )


class FetchCancelRequested(CancelRequested, topic="envelope_test.cancel_requested"):
    pass


class Fact(Event, topic="envelope_test.fact"):
    number: int = 1


@pytest.mark.parametrize(("thing", "said"), [({"number": 3}, "it is a dict"), (Fact, "the class Fact itself")])
def test_what_is_no_event_is_refused(thing: Any, said: str) -> None:
    """A dict or a class in the place of an event says so, and what to publish instead."""
    with pytest.raises(PayloadRefused, match=said):
        encode_event(thing, stream="s", correlation_id="c", event_id="e", source="me")


def test_an_envelope_holds_the_exact_payload_and_its_digest() -> None:
    """Version and topic come from the class, the rest from the arguments."""
    row = encode_event(
        Draft(event=Fact(number=3)),
        stream="s",
        correlation_id="c",
        event_id="e",
        source="me",
        causation_id="x",
        cause_position=4,
        decided_by="queen/1",
        occurred_at=5,
        metadata={"k": "v"},
    )
    assert row == NewEvent(
        event_id="e",
        stream="s",
        topic="envelope_test.fact",
        correlation_id="c",
        causation_id="x",
        cause_position=4,
        decided_by="queen/1",
        source="me",
        schema_version=1,
        payload='{"number":3}',
        metadata='{"k":"v"}',
        digest=digest(b'{"number":3}'),
        occurred_at=5,
    )


def test_a_policy_becomes_work_in_microseconds() -> None:
    """Labels are sorted into a queue, a delay makes it wait for time."""
    ready = intent_work(Fetch(), 2)
    assert ready == WorkInsert(
        event_index=2,
        queue="fetch net",
        state="ready",
        priority=3,
        cost=2.5,
        waiting_timeout=1_500_000,
        running_timeout=2_000_000,
        silent_timeout=250_000,
        total_timeout=60_000_000,
        preferred="ada",
        hold_out=500_000,
    )
    delayed = intent_work(Fetch(delay=0.1), 0)
    assert delayed is not None
    assert (delayed.state, delayed.delay) == ("delayed", 100_000)


@pytest.mark.parametrize(
    ("intent", "state"),
    [
        (events.TimerSet(timer_id="t", seconds=0), "delayed"),
        (events.ApprovalRequested(approval_id="a", expires_in=3), "waiting"),
        (events.ToolRequested(tool="read"), "ready"),
        (events.TaskReady(task_id="t", delay=2), "delayed"),
    ],
)
def test_who_moves_an_intent_first_is_its_state(intent: Intent, state: str) -> None:
    """Time, a person, or a hand."""
    work = intent_work(intent, 0)
    assert work is not None
    assert work.state == state


def test_what_nobody_needs_to_do_is_no_work() -> None:
    """A drone's task asks no hand, and a fact asks nobody."""
    assert intent_work(events.TaskReady(task_id="t", kind="prompt"), 0) is None
    assert intent_work(Fact(), 0) is None


def test_a_request_asks_and_cancels_by_its_events() -> None:
    """Indices are those of the request; a cancel request names the intent that should end."""
    items: list[Event | Draft] = [
        Fact(),
        Fetch(),
        Draft(event=FetchCancelRequested(intent_id="old")),
        events.TimerSet(timer_id="t", seconds=1),
    ]
    insert, cancel, timer = work_changes(items, first=10)
    assert isinstance(insert, WorkInsert)
    assert insert.event_index == 11
    assert cancel == WorkCancel(work_id="old")
    assert isinstance(timer, WorkInsert)
    assert timer.event_index == 13


def test_people_move_only_their_own_intents() -> None:
    """A built-in intent, or a built-in cancel request, that a person publishes is recorded and moves nothing."""
    items: list[Event | Draft] = [
        events.TimerSet(timer_id="t", seconds=1),
        events.TaskCancelRequested(task_id="t", intent_id="x"),
        Fetch(),
    ]
    [work] = work_changes(items, built_in=False)
    assert isinstance(work, WorkInsert)
    assert work.event_index == 2
    assert is_users(Fetch)
    assert not is_users(events.TimerSet)


GUARDED = """
    workflow: started plan_requested plan_rejected paused resumed completed failed cancelled plan_generated
    task: created ready completed failed retried skipped cancelled cancel_requested review_requested assigned
    task: returned attempt_failed superseded review_completed
    drone: message completed failed interrupted retired resumed
    model: requested cancel_requested started attempt_failed superseded cancelled failed responded
    tool: requested cancel_requested started attempt_failed superseded cancelled failed returned
    timer: set cancel_requested fired cancelled
    approval: requested cancel_requested expired cancelled granted denied
    agent: registered online offline busy draining
    budget: set reserved settled exceeded cleared
    system: epoch_started parked unparked discarded archived redacted alert_raised alert_cleared view_switched
"""
OPEN = {
    *("workflow.requested", "workflow.cancel_requested", "workflow.pause_requested", "workflow.resume_requested"),
    *(
        "workflow.forked",
        "workflow.labelled",
        "task.retry_requested",
        "drone.hatched",
        "drone.buzzed",
        "drone.interrupt_requested",
    ),
}


def test_every_built_in_topic_is_guarded_or_open() -> None:
    """What people may publish into a run is a short list; everything else has a guard that says what to do instead."""
    guarded = {
        f"{line.split(':')[0].strip()}.{word}"
        for line in GUARDED.strip().splitlines()
        for word in line.split(":")[1].split()
    }
    topics = {cls.TOPIC for name in events.__all__ if issubclass(cls := getattr(events, name), Event)}
    assert guarded | OPEN == topics
    assert {topic for topic in topics if guard_of(topic) is not None} == guarded
    assert all(guard.instead and guard.owner for topic in guarded if (guard := guard_of(topic)) is not None)


def test_a_users_ends_are_guarded_as_soon_as_there_is_an_intent() -> None:
    """Results, failure, cancellation and the lifecycle of a family that a user defines; its facts are free."""
    assert guard_of("envelope_later.sent") is None
    type(
        "Later", (Intent,), {"__module__": __name__}, topic="envelope_later.requested", results=("envelope_later.sent",)
    )
    for word in ("sent", "failed", "cancelled", "started", "attempt_failed", "superseded"):
        assert guard_of(f"envelope_later.{word}") is not None
    assert guard_of("envelope_later.requested") is None
    assert guard_of("envelope_test.fact") is None
