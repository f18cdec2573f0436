"""The `hive` command: the composition root, where all floors meet. One module for each group of commands."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; exits with the code that ``exits`` lists."""
    from dashboard.cli.app import run

    run()
