"""Checks of the work queue against the log: items, attempts, intents and their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hive_core_db.audit.finding import Finding, Vocabulary, at, fact
from hive_core_db.audit.snapshot import Snapshot


def work_rows(db: Snapshot) -> Iterator[Finding]:
    """An open item is its intent's event, and its state agrees with who holds it."""
    query = """
    SELECT w.work_id, w.position, w.state, w.lease_id, w.claimed_at, w.attempt, w.fence,
        e.position, e.topic = w.topic AND e.correlation_id = w.correlation_id AND e.stream = w.stream
    FROM work AS w LEFT JOIN events AS e ON e.event_id = w.work_id"""
    for work_id, position, state, lease, claimed, attempt, fence, actual, same in db.rows(query):
        if actual is None:
            yield fact(
                "work-without-intent", f"item {work_id}", "it has no intent in the log", f"event {work_id}", "nothing"
            )
        elif actual != position or not same:
            yield at(
                "work-differs",
                actual,
                f"item {work_id} is not what its intent says",
                f"position {actual}",
                f"{position}",
            )
        if (state == "claimed") != (lease is not None and claimed is not None):
            holder = lease or "nobody"
            yield fact(
                "work-state",
                f"item {work_id}",
                f"it is {state} and held by {holder}",
                "held if and only if claimed",
                state,
            )
        if attempt > fence or attempt < (state == "claimed"):
            yield fact(
                "work-state",
                f"item {work_id}",
                "its attempts do not agree with its fence",
                f"at most {fence}",
                f"{attempt}",
            )


@dataclass(slots=True)
class _Life:
    """What the log says of one intent so far."""

    position: int
    topic: str
    decided: bool
    queued: bool
    started: int = 0
    running: bool = False
    ended_at: int | None = None


def effects(db: Snapshot, words: Vocabulary) -> Iterator[Finding]:
    """An intent has exactly one result or exactly one open item; attempts follow one another; no result is nobody's."""
    if not words.results:
        return
    lives: dict[str, _Life] = {}
    results = {topic for topics in words.results.values() for topic in topics}
    open_items = dict(db.rows("SELECT work_id, attempt FROM work"))
    mentioned = sorted({*words.results, *results, *words.starts, *words.retries})
    query = f"""
    SELECT e.position, e.event_id, e.topic, e.causation_id, e.decided_by, coalesce(e.payload, {db.text_of.format("b.body")})
    FROM events AS e LEFT JOIN blobs AS b ON e.payload IS NULL AND b.digest = e.digest
    WHERE e.topic IN ({", ".join("?" * len(mentioned))}) ORDER BY e.position"""
    for position, event_id, topic, cause, decided_by, payload in db.rows(query, *mentioned):
        life = lives.get(cause)
        if topic in results and (life is not None and topic in words.results[life.topic]):
            yield from _ended(life, position, topic, cause, open_items)
        elif topic in words.starts and life is not None:
            yield from _began(life, position, cause)
        elif topic in words.retries and life is not None:
            life.running = False
        elif topic in results and cause is not None and decided_by is None:
            yield at("result-without-intent", position, f"{topic} ends no intent", "an intent as its cause", f"{cause}")
        if topic in words.results:
            lives[event_id] = _Life(position, topic, decided_by is not None, words.queued(topic, payload or ""))
    for event_id, life in lives.items():
        yield from _unended(event_id, life, open_items)


def _ended(life: _Life, position: int, topic: str, intent: str, open_items: Mapping[str, int]) -> Iterator[Finding]:
    if life.ended_at is not None:
        yield at(
            "result-twice", position, f"{topic} ends intent {intent} again", f"one end, at {life.ended_at}", "another"
        )
    elif intent in open_items:
        yield at(
            "ended-but-open", position, f"intent {intent} has its result and an open item", "no item", "an open item"
        )
    life.ended_at = life.ended_at or position
    life.running = False


def _began(life: _Life, position: int, intent: str) -> Iterator[Finding]:
    if life.ended_at is not None:
        yield at(
            "claim-after-end",
            position,
            f"intent {intent} was taken after its end",
            f"nothing after {life.ended_at}",
            "a claim",
        )
    elif life.running:
        yield at(
            "claim-overlaps",
            position,
            f"intent {intent} was taken while an attempt ran",
            "the attempt's end first",
            "a claim",
        )
    life.started += 1
    life.running = True


def _unended(intent: str, life: _Life, open_items: Mapping[str, int]) -> Iterator[Finding]:
    attempts = open_items.get(intent)
    if attempts is not None and life.started > attempts:
        yield at(
            "claims",
            life.position,
            f"item {intent} was taken more often than it counts",
            f"{attempts}",
            f"{life.started}",
        )
    if life.ended_at is None and attempts is None and life.queued and (life.decided or life.started):
        expected = "a result or an open item"
        yield at("intent-lost", life.position, f"intent {intent} ({life.topic}) will never end", expected, "neither")
