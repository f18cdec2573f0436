"""Prices: offline, exact, and honest about what they do not know."""

from __future__ import annotations

from decimal import Decimal

import genai_prices
import pytest

from agents.model import Usage
from agents.prices import PRICE_TABLE, charge_for


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(), "0"),
        (Usage(input_tokens=1_000_000), "2"),
        (Usage(output_tokens=1_000_000), "10"),
        (Usage(cache_read_tokens=1_000_000), "0.1"),
        (Usage(cache_write_tokens=1_000_000), "2.5"),
        (Usage(cache_write_tokens=1_000_000, cache_write_1h_tokens=400_000), "3.1"),
        (Usage(input_tokens=3, output_tokens=7, cache_read_tokens=9_000, cache_write_tokens=11), "0.0010035"),
    ],
)
def test_each_kind_of_token_has_its_price(usage: Usage, dollars: str) -> None:
    """Cached input is counted once, at its own price, although the provider leaves it out of the input."""
    charge = charge_for("claude-sonnet-5-5", usage)
    assert charge is not None
    assert Decimal(charge.amount) == Decimal(dollars)
    assert "E" not in charge.amount
    assert charge.price_table == PRICE_TABLE == f"genai-prices {genai_prices.__version__}"


def test_a_model_that_is_not_in_the_table_has_no_price() -> None:
    """An unknown model costs nobody knows what: None, not zero and no error."""
    assert charge_for("llama9", Usage(input_tokens=5)) is None
