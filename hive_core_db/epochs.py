"""Where a new epoch of the log begins: above every position that the database may have shown before it lost its tail.

Pure arithmetic, shared by both databases; `sqlite/identity.py` and `postgres/identity.py` say when an epoch begins.

A database that was restored, copied or promoted knows the last event that it still has, not the last one that
anybody saw: what it lost was recorded after that event and before now. So the number of lost events is bounded by
time, and the new epoch begins at::

    first = round_up(last + max(LEAST, seconds * RATE), ROUND)

``last`` is the greatest position that the database can have shown (its head, or the beginning of an epoch in which
nothing was recorded), ``seconds`` the database time since then, not below 0. RATE is more than ten times what the
fastest log ever measured appends in a second, and LEAST is that rate for ten seconds, so that clocks which
differ by some seconds between two servers change nothing. Positions have 63 bits: a jump over a whole
year takes 3.2e12 of 9.2e18, and every number stays exact in JSON (below 2**53) for two centuries.
"""

from __future__ import annotations

from typing import Final

RATE: Final = 100_000
"""Events a second that no log reaches for long."""
LEAST: Final = 1_000_000
"""Positions that a new epoch jumps at least."""
ROUND: Final = 1_000_000
"""A new epoch begins at a multiple of this: a number that people recognise."""

_SECOND: Final = 1_000_000


def first_position(*, last: int, since: int, now: int) -> int:
    """Return where the next epoch begins.

    Args:
        last: The greatest position that this database knows of.
        since: When it was recorded, database time in microseconds.
        now: Database time in microseconds.
    """
    seconds = max(0, now - since) // _SECOND + 1
    least = last + max(LEAST, seconds * RATE)
    return -(-least // ROUND) * ROUND


def reason(*, before: str, after: str) -> str:
    """Return why an epoch begins, for people: which identity the database had and has."""
    return f"the database is another one: it was {before or 'copied or restored'}, it is {after}"
