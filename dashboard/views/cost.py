"""What model calls cost: tokens and dollars, added up exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from hive_bus import Record

_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Model calls added up. ``dollars`` leaves out the ``unpriced`` ones, whose model has no known price.

    ``input_tokens`` are those neither read from nor written to the provider's cache.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    dollars: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def tokens_in(self) -> int:
        """Everything that was sent: fresh, read from the cache, written to it."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            dollars=self.dollars + other.dollars,
            unpriced=self.unpriced + other.unpriced,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; dollars as decimal text."""
        return {
            "calls": self.calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "dollars": f"{self.dollars:f}",
            "unpriced": self.unpriced,
        }


FREE: Final = Cost()
"""Nothing was called."""


CHARGED: Final = frozenset({"model.responded", "model.attempt_failed", "model.failed", "model.superseded"})
"""The topics that say what a model call cost. A late answer is paid for as well, although nobody uses it."""


def cost_of(record: Record) -> Cost:
    """What one event says that a model call cost; nothing for an event of another kind.

    An answer is a call. An attempt without an answer is none, but what it used is counted, and is without a price
    where it used something that nobody knows the price of.
    """
    data = record.data if record.topic in CHARGED and isinstance(record.data, dict) else {}
    if record.topic == "model.responded":
        return _of(data, data, calls=1)
    if record.topic == "model.superseded":
        result = data.get("result")
        late = data.get("result_topic") == "model.responded" and isinstance(result, dict)
        return _of(result, result, calls=1) if late and isinstance(result, dict) else FREE
    usage = data.get("usage")
    return _of(data, usage if isinstance(usage, dict) else {}, calls=0)


def _of(data: Mapping[str, Any], tokens: Mapping[str, Any], *, calls: int) -> Cost:
    price = data.get("cost")
    counted = {name: int(tokens.get(name) or 0) for name in _TOKENS}
    unknown = price is None and (calls or any(counted.values()))
    return Cost(calls=calls, dollars=Decimal(price or 0), unpriced=int(bool(unknown)), **counted)
