"""The hive's own log lines in a command: warnings when there are some, everything with ``--verbose``."""

from __future__ import annotations

import logging
import sys


def follow_log(*, verbose: bool, db: str | None) -> None:
    """Write log lines to standard error: from the level of the settings upwards, or warnings only."""
    if verbose:
        from hive_bus.config import load_settings
        from hive_bus.telemetry import configure_logging

        settings = load_settings({"db": db})
        configure_logging(json=settings.log_json, level=settings.log_level)
        return
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(_FirstLine(logging.WARNING))


class _FirstLine(logging.Handler):
    """Waits for the first line, and only then loads what renders it: that takes a tenth of a second."""

    def emit(self, record: logging.LogRecord) -> None:
        from hive_bus.telemetry import configure_logging

        root = logging.getLogger()
        root.removeHandler(self)
        configure_logging(json=False, level="WARNING", stream=sys.stderr)
        root.handle(record)
