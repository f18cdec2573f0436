"""command: a shell line in the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.policy import Policy
from agents.process import run_command
from agents.tool import ToolContext
from agents.tools import command, step_outcome


async def test_it_runs_in_the_workspace_with_the_step_s_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither keys nor the hive's own variables are seen."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("HIVE_DB", "sqlite:///x")
    ctx = ToolContext(root=tmp_path, idempotency_key="key", env={"MINE": "1"})
    outcome = await command.call({"command": "pwd; env"}, ctx)
    lines = outcome.output.splitlines()
    assert lines[0] == str(tmp_path)
    assert "MINE=1" in lines
    assert not [line for line in lines if line.startswith(("ANTHROPIC", "HIVE"))]


async def test_a_failure_is_an_error_with_everything_it_said(tmp_path: Path) -> None:
    """Standard output, standard error and the code, for a model to read."""
    ctx = ToolContext(root=tmp_path, idempotency_key="key")
    outcome = await command.call({"command": "echo out; echo err >&2; exit 3"}, ctx)
    assert outcome.output == "out\n[stderr]\nerr\n[exit code 3]"
    assert (outcome.is_error, outcome.exit_code, outcome.truncated) == (True, 3, False)


@pytest.mark.parametrize(("given", "limit"), [(1.0, 1000.0), (None, 1.0), (1000.0, 1.0)])
async def test_the_shortest_limit_ends_it(tmp_path: Path, given: float | None, limit: float) -> None:
    """The call's own or the step's: what was said until then is kept, and the outcome says what happened."""
    ctx = ToolContext(root=tmp_path, idempotency_key="key", timeout=limit)
    outcome = await command.call({"command": "echo hello; sleep 1000", "timeout": given}, ctx)
    assert outcome.output.startswith("hello\n[ended after ")
    assert outcome.is_error
    assert outcome.data["timed_out"] is True


async def test_the_policy_s_limits_hold_without_any_other(tmp_path: Path) -> None:
    """Time and output have limits though nobody named one."""
    for line, policy, said in (
        ("sleep 1000", Policy(command_timeout=0.1), "too long"),
        ("yes", Policy(command_output_max=10_000), "too much"),
    ):
        ctx = ToolContext(root=tmp_path, idempotency_key="key", policy=policy)
        assert said in (await command.call({"command": line}, ctx)).output


async def test_output_is_streamed_and_storable(tmp_path: Path) -> None:
    """Pieces go to who watches; a NUL becomes its picture, because the log takes none."""
    pieces: list[str | bytes] = []
    ctx = ToolContext(root=tmp_path, idempotency_key="key", on_output=pieces.append)
    outcome = await command.call({"command": r"printf 'a\0b'"}, ctx)
    assert pieces == [b"a\0b"]
    assert outcome.output == "a\N{SYMBOL FOR NULL}b"


async def test_a_step_s_output_is_standard_output_only(tmp_path: Path) -> None:
    """Without its last newline, to be used by a later step; the rest is data."""
    result = await run_command("echo 1; echo 2; echo err >&2; exit 1", cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    outcome = step_outcome(result)
    assert (outcome.output, outcome.exit_code, outcome.is_error) == ("1\n2", 1, True)
    assert outcome.data["stderr"] == "err\n"
