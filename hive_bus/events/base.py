"""The base of the published language: built-in facts keep what they do not know."""

from __future__ import annotations

from pydantic import ConfigDict

from hive_bus.event import Event


class Fact(Event):
    """A built-in event. Fields beyond its own are kept: people add theirs, readers ignore them."""

    model_config = ConfigDict(frozen=True, extra="allow")
