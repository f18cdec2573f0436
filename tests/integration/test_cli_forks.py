"""What tests run as a fork does what the program does: it reads, writes and ends alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.console import HIVE, Console
from tests.support.forks import forks

FOREVER = "{name: long, steps: [{id: long, run: sleep 1000}]}\n"


@pytest.mark.parametrize(
    "words", [("--help",), ("runs", "--json"), ("nonsense",), ("validate", "none.yaml"), ("run", "bad.yaml")]
)
def test_a_fork_is_the_program(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit code, output and complaints are those of the program that a shell starts."""
    (tmp_path / "bad.yaml").write_text("{name: bad, steps: 7}\n")
    console = Console(tmp_path)
    forked, program = console(*words), console(*words, env={})
    assert forked == program
    assert forked.out or forked.err


def test_a_fork_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    """As a program would be: its caller hears of it, and the next command is served."""
    (tmp_path / "long.yaml").write_text(FOREVER)
    console = Console(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        forks(measured=True).run(
            [HIVE, "run", "long.yaml", "--approve", "all"], tmp_path, console.environment, within=2
        )
    assert console("--help").code == 0
