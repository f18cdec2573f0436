"""Views of agents and of the whole hive: presence from leases, activity from events, sentences from both."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from dashboard.views import ProcessView, StatusView, activities, agent_views, effect_topics, live_tails, process_view
from dashboard.views.reading import capabilities
from dashboard.views.status import FAR_BEHIND, GroupView
from hive_bus import Record
from hive_core_db.records import Lease, QueueDepth

SECOND = 1_000_000
START = 1_800_000_000 * SECOND


def lease(owner: str, *, closed: bool = False, **info: Any) -> Lease:
    """A lease of ten seconds, opened at the start."""
    return Lease(
        lease_id=f"lease-of-{owner}",
        owner=owner,
        opened_at=START,
        expires_at=START + 10 * SECOND,
        closed=closed,
        info=json.dumps(info),
    )


class Story:
    """Events of effects, a second apart unless said otherwise."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._numbers = count(1)
        self._now = float(START)

    def tell(self, topic: str, cause: str = "", *, after: float = 1.0, decided: bool = False, **data: Any) -> str:
        """One more event; its id."""
        number = next(self._numbers)
        self._now += after * SECOND
        self.records.append(
            Record(
                position=number,
                event_id=f"e{number}",
                stream="r/run",
                version=number,
                topic=topic,
                correlation_id="r",
                causation_id=cause or None,
                cause_position=None,
                decided_by="queen@1:abc" if decided else None,
                source="test",
                schema_version=1,
                payload=json.dumps(data),
                metadata=None,
                digest="",
                append_first=number,
                occurred_at=round(self._now),
                recorded_at=round(self._now),
            )
        )
        return f"e{number}"


def test_presence_and_execution_are_told_apart() -> None:
    """A draining process's agents are draining whatever they do; what they do is what the last renewal said."""
    about = {"kind": "brain", "since": START + 1, "running": 2, "slots": 8, "done": 5, "failed": 1, "last": START + 2}
    draining = lease("hive", host="vm", pid=7, state="draining", agents={"drone": about, "queen": {"kind": "brain"}})
    mailer = {"version": "2", "capabilities": ["mail"], "busy": True, "running": 1, "slots": 1, "done": 0, "last": 0}
    online = lease("agent/mailer", host="vm", pid=8, agents={"mailer": mailer}, wrong={"loop": "it stood still"})
    one, two, three = agent_views([draining, online], [], [], {})
    assert (one.name, one.presence, one.busy, one.running, one.slots, one.last_at) == (
        "mailer",
        "online",
        True,
        1,
        1,
        None,
    )
    assert (one.capabilities, one.wrong) == (("mail",), ("loop: it stood still",))
    assert (two.name, two.presence, two.since, two.done, two.failed) == ("drone", "draining", START + 1, 5, 1)
    assert (three.name, three.running, three.since, three.pid) == ("queen", None, START, 7)


def test_who_runs_nowhere_is_offline_or_lost() -> None:
    """Lost while nobody closed its lease, offline when it was said; somebody who came back is neither."""
    story = Story()
    for name, reason in (("mailer", "stopped"), ("ghost", "its process is gone"), ("mailer", "older")):
        story.tell("agent.offline", name=name, lease_id="x", reason=reason)
    registered = {"ghost": Record(*story.records[1]._replace(payload=json.dumps({"version": "3", "kind": "brain"})))}
    asleep = lease("asleep", agents={"sleeper": {"kind": "agent"}})
    closed = lease("closed", closed=True, agents={"gone": {}})
    live = lease("new", agents={"mailer": {}})
    views = agent_views([live], [asleep, closed], story.records, registered)
    assert [(view.name, view.presence) for view in views] == [
        ("mailer", "online"),
        ("sleeper", "lost"),
        ("ghost", "offline"),
    ]
    assert (views[1].since, views[1].reason) == (START + 10 * SECOND, "its lease ran out")
    assert (views[2].version, views[2].kind, views[2].reason) == ("3", "brain", "its process is gone")
    assert json.loads(json.dumps(views[2].as_dict()))["name"] == "ghost"


@pytest.mark.parametrize("info", ["", "[]", "7", '{"agents": [1], "wrong": 2}', '{"agents": {"a": 3}, "pid": "x"}'])
def test_a_lease_of_another_program_is_only_a_process(info: str) -> None:
    """Whatever it wrote there."""
    foreign = lease("foreign")
    foreign = Lease(
        lease_id="l", owner="foreign", opened_at=START, expires_at=START, closed=False, info=info or foreign.info
    )
    assert agent_views([foreign], [], [], {}) == []
    assert process_view(foreign) == ProcessView(
        owner="foreign", lease_id="l", since=START, wrong={}, agents=process_view(foreign).agents
    )


def test_where_live_tails_come_from_is_one_sentence() -> None:
    """How many live off NATS, and why the others do not; nothing where no process has a server."""
    why = "this process relays the log to NATS"
    tails = [{"source": "nats"}, {"source": "database", "why": why}, None]
    processes = [process_view(lease(f"p{number}", pid=number, tail=tail)) for number, tail in enumerate(tails)]
    assert live_tails(processes) == f"from NATS in 1 of 2; p1 (pid 1) from the database: {why}"
    assert not live_tails(processes[2:])


def test_activity_is_counted_by_queue() -> None:
    """Waits until a hand took it, work until its end, failures by what ended it, and what was tried again."""
    story = Story()
    for outcome, took in (("completed", 2.0), ("failed", 4.0), ("unknown", 6.0)):
        ready = story.tell("task.ready", capability="pack", kind="worker")
        story.tell("task.assigned", ready, after=0.5)
        story.tell("task.returned", ready, after=took, outcome=outcome)
    model = story.tell("model.requested")
    story.tell("model.started", model)
    story.tell("model.attempt_failed", model, after=3.0)
    story.tell("model.started", model)
    story.tell("model.responded", model)
    story.tell("model.superseded", model)
    drone = story.tell("task.ready", kind="prompt")
    story.tell("task.assigned", drone, decided=True)
    letter = story.tell("letter.requested")
    story.tell("letter.started", letter)
    story.tell("letter.sent", letter)
    cancelled = story.tell("tool.requested")
    story.tell("tool.cancelled", cancelled)
    found = activities(story.records)
    assert sorted(found) == ["letter", "model", "task:pack", "tool"]
    pack, asked = found["task:pack"], found["model"]
    assert (pack.ended, pack.failed, pack.waited, pack.worked) == (3, 2, (0.5, 0.5), (4.0, 6.0))
    assert pack.error_rate == pytest.approx(2 / 3)
    assert (asked.ended, asked.failed, asked.attempts_failed, asked.waited, asked.worked) == (
        1,
        0,
        1,
        (1.0, 1.0),
        (1.0, 3.0),
    )
    assert (found["letter"].ended, found["tool"].ended, found["tool"].worked) == (1, 1, None)
    assert found["tool"].as_dict()["error_rate"] == 0.0


def test_of_what_began_before_only_the_end_counts() -> None:
    """The window cuts effects in two: no time is made up for them."""
    story = Story()
    story.tell("task.assigned", "unseen")
    story.tell("task.returned", "unseen", outcome="failed")
    story.tell("model.failed", "another")
    found = activities(story.records)
    assert (found["task"].ended, found["task"].failed, found["task"].waited) == (1, 1, None)
    assert (found["model"].ended, found["model"].failed, found["model"].worked) == (1, 1, None)


def test_the_topics_of_effects_are_those_with_starts() -> None:
    """A user's own intents too; states of runs and of tasks are none."""
    log = ["letter.requested", "letter.started", "order.placed", "task.assigned", "task.created", "workflow.started"]
    assert effect_topics(log) == ["letter.requested", "letter.started", "task.assigned"]


def test_queues_know_who_could_take_from_them() -> None:
    """By a task's capability or by an intent's topic; who drains takes nothing."""
    here = agent_views(
        [
            lease("one", agents={"packer": {"capabilities": ["pack", "letter.requested"]}}),
            lease("two", state="draining", agents={"baker": {"capabilities": ["bake"]}}),
        ],
        [],
        [],
        {},
    )
    depths = [_depth("letter"), _depth("task:bake"), _depth("task:pack")]
    found = {one.queue: one for one in capabilities(depths, {}, here, now=START + 5 * SECOND, seconds=60)}
    assert {queue: one.agents for queue, one in found.items()} == {"letter": 1, "task:bake": 0, "task:pack": 1}
    assert found["letter"].oldest_wait == 5.0
    status = _status(capabilities=tuple(found.values()))
    assert status.attention == ("3 of task:bake wait, and nobody online can take it",)


def test_what_needs_an_eye_is_said_in_sentences() -> None:
    """Alerts of processes, groups far behind that somebody holds, parked keys; nothing when all is well."""
    late = GroupView(name="g", partitions=4, held_by={"one": 4}, behind=9, oldest_seconds=FAR_BEHIND + 1)
    left = GroupView(name="h", partitions=4, held_by={}, behind=9, oldest_seconds=FAR_BEHIND + 1)
    wrong = process_view(lease("one", pid=7, wrong={"loop": "it stood still"}))
    lost = process_view(lease("two", pid=8, host="vm"))
    status = _status(processes=(wrong,), lost=(lost,), groups=(late, left), parked=2)
    assert status.attention == (
        "one (pid 7): loop: it stood still",
        "two (pid 8 on vm) is lost, and nobody took over",
        "group g is 9 behind, the oldest for 61 s",
        "2 keys are parked: hive parked",
    )
    assert _status().attention == ()
    told = json.loads(json.dumps(status.as_dict()))
    assert (told["groups"][0]["held_by"], told["groups"][1]["free"]) == ({"one": 4}, 4)
    assert told["events_per_second"] == 2.0


def _depth(queue: str) -> QueueDepth:
    return QueueDepth(
        queue=queue, ready=3, delayed=0, waiting=0, claimed=0, oldest_ready_at=START, oldest_claimed_at=None
    )


def _status(**fields: Any) -> StatusView:
    return StatusView(
        database="d",
        log="hive",
        epoch=1,
        head=20,
        now=START + 10 * SECOND,
        since=START,
        events_since=20,
        sampled_seconds=10.0,
        runs_since={},
        **fields,
    )
