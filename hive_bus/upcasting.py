"""Upcasters: pure functions from one version of an event's JSON to the next, applied on read.

A stored event is never rewritten. ``upcast`` walks from the stored version to the
class's; a missing step is an error, and so is a stored version newer than the class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from hive_errors import NewerVersion, UpcasterMissing

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

_upcasters: dict[tuple[str, int], Upcaster] = {}


def upcaster(topic: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register a function that turns the JSON of ``from_version`` into that of the next version."""

    def register(function: Upcaster) -> Upcaster:
        _upcasters[topic, from_version] = function
        return function

    return register


def upcasters_of(topics: Collection[str]) -> list[Upcaster]:
    """Every function that is registered for one of these topics."""
    return [step for (topic, _), step in _upcasters.items() if topic in topics]


def upcast(topic: str, data: dict[str, Any], *, stored: int, known: int) -> dict[str, Any]:
    """Bring ``data`` from version ``stored`` to ``known``.

    Raises :class:`NewerVersion` when stored is newer, :class:`UpcasterMissing` when a step is missing.
    """
    if stored > known:
        raise NewerVersion(what=topic, stored=stored, known=known)
    for version in range(stored, known):
        step = _upcasters.get((topic, version))
        if step is None:
            raise UpcasterMissing(topic=topic, version=version)
        data = step(data)
    return data
