"""What a model call costs, from a price table that travels with the installed package: no network.

It owns the translation of Anthropic's token counts into the table's; it must not know a request or a run.
"""

from __future__ import annotations

from typing import Final

import genai_prices

from agents.model import Charge, Usage

__all__ = ["PRICE_TABLE", "charge_for"]

PRICE_TABLE: Final = f"genai-prices {genai_prices.__version__}"
"""The price table and its version, kept with every charge: prices change, charges do not."""


def charge_for(model: str, usage: Usage, *, provider: str = "anthropic") -> Charge | None:
    """The cost of ``usage`` by ``model`` in US dollars, or None when the table does not know the model.

    The table counts *all* input as input tokens, cached or not, where Anthropic counts only the uncached part.
    """
    counted = genai_prices.Usage(
        input_tokens=usage.total_input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        price = genai_prices.calc_price(counted, model, provider_id=provider)
    except LookupError:
        return None
    return Charge(amount=f"{price.total_price:f}", price_table=PRICE_TABLE)
