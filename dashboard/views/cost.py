"""What model calls cost: tokens and dollars, added up exactly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Model calls added up. ``dollars`` leaves out the ``unpriced`` calls, whose model has no known price.

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


def cost_of_failure(data: dict[str, Any]) -> Cost:
    """What an attempt cost that gave no answer, from the body of ``model.attempt_failed`` or ``model.failed``: dollars alone."""
    return Cost(dollars=Decimal(data.get("cost") or 0))


def cost_of(data: dict[str, Any]) -> Cost:
    """The cost of one ``model.responded``, from its body as stored."""
    price = data.get("cost")
    return Cost(
        calls=1,
        input_tokens=int(data.get("input_tokens") or 0),
        output_tokens=int(data.get("output_tokens") or 0),
        cache_read_tokens=int(data.get("cache_read_tokens") or 0),
        cache_write_tokens=int(data.get("cache_write_tokens") or 0),
        dollars=Decimal(price) if price else Decimal(0),
        unpriced=0 if price is not None else 1,
    )
