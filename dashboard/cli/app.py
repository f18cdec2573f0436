"""The list of commands, in the order that `hive --help` shows them."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Final

from dashboard.cli.command import app

MODULES: Final = (
    "running",
    "demo",
    "runs",
    "trace",
    "watch",
    "events",
    "labels",
    "usage",
    "diff",
    "forking",
    "what_if",
    "state",
    "replay",
    "budget",
    "why",
    "answers",
    "agents",
    "status",
    "parked",
    "checks",
    "history",
    "views",
    "db",
    "mirror",
    "doctor",
)
"""Modules of this package that define commands; each is cheap to import and loads what it needs when it is called."""

ORDER: Final = (
    *("demo", "up", "run", "runs", "trace", "watch", "replay", "state", "events", "label", "publish"),
    *("fork", "what-if", "usage", "budget", "diff", "why"),
    *("approve", "deny", "cancel", "retry"),
    *("status", "agents", "agent", "parked"),
    *("validate", "audit", "redrive", "history", "views", "db", "mirror", "doctor"),
)
"""The commands as `hive --help` lists them."""


def run() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in MODULES:
        import_module(f"dashboard.cli.{name}")
    app.registered_commands.sort(key=lambda made: ORDER.index(made.name or ""))
    app(prog_name="hive")
