"""Ids: unique, sortable by time, derivable, and the same again from the same seed."""

from __future__ import annotations

import os
import uuid

from hypothesis import given
from hypothesis import strategies as st

from hive_bus.ids import CROCKFORD, RUN_ID_LENGTH, Ids, derived_event_id

NOW = 1_700_000_000_123_456


def test_an_event_id_is_a_uuid7_of_its_time() -> None:
    """Version 7, the RFC's variant, and the milliseconds in front."""
    text = Ids().event_id(NOW)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == NOW // 1000


@given(st.integers(0, 2**57), st.integers(0, 2**57))
def test_event_ids_sort_by_time(first: int, second: int) -> None:
    """Ids of different milliseconds are in the order of their times."""
    ids = Ids(seed=1)
    early, late = sorted((first, second))
    if early // 1000 != late // 1000:
        assert ids.event_id(early) < ids.event_id(late)


@given(st.integers(0, 2**57), st.text(max_size=5), st.integers())
def test_a_derived_id_is_the_same_again_and_a_uuid7(time: int, key: str, ordinal: int) -> None:
    """The same decision on the same cause has the same id; another ordinal another one."""
    text = derived_event_id(time, "queen", key.encode("utf-8", "ignore").decode(), ordinal)
    assert text == derived_event_id(time, "queen", key.encode("utf-8", "ignore").decode(), ordinal)
    assert text != derived_event_id(time, "queen", key.encode("utf-8", "ignore").decode(), ordinal + 1)
    assert uuid.UUID(text).version == 7


def test_a_derived_id_does_not_confuse_its_parts() -> None:
    """Parts are separated: moving a character from one to the next is another id."""
    assert derived_event_id(NOW, "ab", "c") != derived_event_id(NOW, "a", "bc")


def test_a_run_id_is_ten_crockford_characters() -> None:
    """Nothing else is in it."""
    ids = Ids()
    for _ in range(200):
        run = ids.run_id()
        assert len(run) == RUN_ID_LENGTH
        assert set(run) <= set(CROCKFORD)


def test_run_ids_use_the_whole_alphabet_at_every_place() -> None:
    """No place is poorer than the others: the ids are as random as they look."""
    ids = Ids(seed=3)
    runs = [ids.run_id() for _ in range(2000)]
    assert [len({run[place] for run in runs}) for place in range(RUN_ID_LENGTH)] == [len(CROCKFORD)] * RUN_ID_LENGTH


def test_a_seed_repeats_everything() -> None:
    """A simulation draws the same ids and the same jitter again."""
    first, second = Ids(seed=7), Ids(seed=7)
    assert [first.event_id(NOW), first.run_id(), first.jitter()] == [
        second.event_id(NOW),
        second.run_id(),
        second.jitter(),
    ]


def test_a_forked_child_draws_other_ids() -> None:
    """Without a seed, parent and child never repeat each other."""
    ids = Ids()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, ids.event_id(NOW).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() != ids.event_id(NOW)
    os.close(read)
    os.close(write)
