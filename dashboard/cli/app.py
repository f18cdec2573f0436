"""The list of commands, in the order that `hive --help` shows them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final, TextIO

from dashboard.cli.command import app

COMMANDS: Final = (
    "demo",
    "running",
    "runs",
    "trace",
    "events",
    "answers",
    "agents",
    "parked",
    "checks",
    "db",
    "doctor",
)
"""Modules of this package that define commands; each is cheap to import and loads what it needs when it is called."""


def run() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, TextIO) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    for name in COMMANDS:
        import_module(f"dashboard.cli.{name}")
    app(prog_name="hive")
