"""How long tests wait for what must come: long, for that costs nothing where it comes, and a slow machine is no failure.

What must *not* come is waited for with a time of the test's own, or better not at all.
"""

from __future__ import annotations

from typing import Final

WITHIN: Final = 100.0
"""Seconds; well below the limit of a test, so that what failed to come is named."""
