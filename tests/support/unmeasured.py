"""The environment of processes whose coverage is not measured: those that are killed leave none, and measuring slows them down."""

from __future__ import annotations

import os
from collections.abc import Mapping


def unmeasured(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment, this process's if nothing is said, without what starts the measuring."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
