"""A difference between then and now as people read it: the state that led to it, and both decisions field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from dashboard.cli.text import Line, cut
from hive_bus.replay.states import plain

if TYPE_CHECKING:
    from hive_bus.replay.redrive import Difference

_MOST: Final = 12
_NOTHING: Final = object()


def as_dict(difference: Difference) -> dict[str, Any]:
    """Plain JSON values; ``state`` is what was decided from."""
    facts = {field.name: getattr(difference, field.name) for field in fields(difference)}
    before, after = facts.pop("before"), facts.pop("after")
    return facts | {
        "other_version": difference.other_version,
        "changed": [[name, was, is_] for name, was, is_ in _changes(before, after)],
        "state": plain(after),
    }


def told(run_id: str, difference: Difference, *, width: int) -> Iterator[Line | str]:
    """Where it is, what the event had changed in the state, and what was decided then and would be now."""
    brain = difference.brain.partition("@")[0]
    by = f", recorded by {difference.recorded_by}" if difference.other_version else ""
    yield [
        (f"run {run_id} position {difference.position} ", "bold"),
        (f"{difference.topic}: the {brain} decides otherwise{by}", "yellow"),
    ]
    changes = list(_changes(difference.before, difference.after))
    for name, was, is_ in changes[:_MOST]:
        yield [("  state ", "dim"), (cut(f"{name}: {_value(was)} -> {_value(is_)}", width - 8), "")]
    if len(changes) > _MOST:
        yield [(f"  state and {len(changes) - _MOST} more", "dim")]
    if difference.error:
        yield [(f"  today: {difference.error}", "red")]
        return
    yield from _decisions(difference, width)


def _decisions(difference: Difference, width: int) -> Iterator[Line]:
    """Events that are gone, that have other fields, and that are new."""
    recorded, today = list(difference.recorded), list(difference.today)
    for one in difference.recorded:
        if one in today:
            recorded.remove(one)
            today.remove(one)
    for stream, topic, payload in recorded:
        other = next((one for one in today if one[:2] == (stream, topic)), None)
        if other is None:
            yield [("  - ", "red"), (cut(f"{topic} in {stream} {payload}", width - 4), "")]
            continue
        today.remove(other)
        yield [("  ~ ", "yellow"), (f"{topic} in {stream}", "")]
        for name, was, is_ in _between(json.loads(payload), json.loads(other[2]), ""):
            yield from _then_and_now(name, was, is_, width)
    for stream, topic, payload in today:
        yield [("  + ", "green"), (cut(f"{topic} in {stream} {payload}", width - 4), "")]


def _then_and_now(name: str, was: Any, is_: Any, width: int) -> Iterator[Line]:
    """A field then and now; of long texts the part around the first letter that differs."""
    then, now = _value(was), _value(is_)
    start = next((n for n, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    room = max(width - len(name) - 8, 30)
    skip = max(start - room // 3, 0) if max(len(then), len(now)) > room else 0
    for sign, style, text in (("- ", "red", then), ("+ ", "green", now)):
        shown = ("…" if skip and text != "(none)" else "") + (text if text == "(none)" else text[skip:])
        yield [(f"    {sign}", style), (cut(f"{name}: {shown}", width - 6), "")]


def _changes(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs between two states, by the path to it."""
    if before is None or after is None:
        return iter(())
    return _between(plain(before), plain(after), "")


def _between(was: Any, is_: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if was == is_:
        return
    if isinstance(was, dict) and isinstance(is_, dict):
        for name in [*was, *(name for name in is_ if name not in was)]:
            yield from _between(was.get(name, _NOTHING), is_.get(name, _NOTHING), f"{path}.{name}" if path else name)
    elif isinstance(was, list) and isinstance(is_, list) and len(was) == len(is_):
        for number, (one, other) in enumerate(zip(was, is_, strict=True)):
            yield from _between(one, other, f"{path}[{number}]")
    else:
        yield path, None if was is _NOTHING else was, None if is_ is _NOTHING else is_


def _value(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
