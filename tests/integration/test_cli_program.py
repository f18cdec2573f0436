"""Commands that the hive proposes work when they are pasted, also where the shell does not know `hive`."""

from __future__ import annotations

from pathlib import Path

from tests.support.console import HIVE, Console

HELLO = "{name: hello, steps: [{id: hello, run: echo hello}]}\n"


def _proposed(console: Console, path: str) -> str:
    done = console("run", "hello.yaml", "--id", "hello", "--if-exists", "return", env={"PATH": path})
    assert done.code == 0, done.err
    return done.err.splitlines()[-1]


def test_a_proposal_begins_with_what_the_shell_finds(tmp_path: Path) -> None:
    """The bare name where the path leads to this program, its own path where it does not."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    console = Console(tmp_path)
    assert _proposed(console, console.environment["PATH"]) == "next: hive trace hello"
    assert _proposed(console, "/usr/bin:/bin") == f"next: {HIVE} trace hello"
