"""A record: a stored event as its readers see it; the body is decoded on demand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from pydantic_core import from_json

from hive_bus.codec import decode
from hive_bus.event import Event
from hive_core_db.records import StoredEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Record(StoredEvent):
    """A stored event: the columns of the log by name, ``event`` decoded when first asked for.

    ``occurred_at`` and ``recorded_at`` are UTC microseconds; ``time`` is the latter as a datetime.
    """

    @cached_property
    def event(self) -> Event:
        """The body, brought to its class's version; a ``RawEvent`` where no class claims the topic.

        Raises :class:`UndecodableEvent`, :class:`NewerVersion` or :class:`UpcasterMissing`.
        """
        return decode(self.topic, self.schema_version, self.payload)

    @cached_property
    def metadata(self) -> dict[str, Any]:  # type: ignore[override]
        """The publisher's small facts about the event, empty where there are none."""
        text = self[12]
        return from_json(text) if text else {}

    @cached_property
    def data(self) -> Any:
        """The body as plain JSON values, exactly as stored: never fails on an event of the log."""
        return from_json(self.payload)

    @property
    def time(self) -> datetime:
        """When it was recorded, in UTC."""
        return _EPOCH + timedelta(microseconds=self.recorded_at)
