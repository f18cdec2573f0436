"""Commands with real processes: what they say, what ends them, and that they end whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import warnings
from pathlib import Path

import pytest

from agents import lifeline
from agents.process import CommandResult, run_command
from hive_errors import CommandNotStarted
from tests.support.patience import WITHIN

ENV = {"PATH": os.environ["PATH"]}
STARTED = 2.0
"""Seconds in which a shell has surely begun with its line, also on a busy machine."""


async def gone(pid: int) -> None:
    """Wait until a process has ended; the test's own time limit is the only one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def running(pipe: Path) -> list[int]:
    """The numbers that a command writes into a named pipe when it runs; opening it waits for that."""
    return [int(word) for word in (await asyncio.to_thread(pipe.read_text)).split()]


async def run(command: str | list[str], **options: object) -> CommandResult:
    """Run a command with an environment of a path only."""
    return await run_command(command, **({"cwd": "/", "env": ENV} | options))  # type: ignore[arg-type]


def descriptors() -> list[str]:
    """What this process has open, but for what it looks at itself with: the watchdog does that at any time."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if not str(link.readlink()).startswith("/proc/"):
                found.append(link.name)
    return sorted(found)


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """A named pipe for a command to write the numbers of its processes into."""
    os.mkfifo(tmp_path / "pids")
    return tmp_path / "pids"


class TestResult:
    """What a command that ends by itself gives back."""

    async def test_output_error_and_exit_code_are_told_apart(self) -> None:
        """Both streams and the code come back, nothing was left out and no limit struck."""
        result = await run("echo out; echo err >&2; exit 3")
        assert (result.output, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
        assert (result.signal, result.truncated, result.timed_out, result.overflowed) == (None, False, False, False)

    async def test_arguments_are_passed_as_they_are(self) -> None:
        """A list is no shell line: blanks, quotes and dollars are just characters."""
        words = ["a b", "$HOME", "'", "", "-n", "*"]
        result = await run(["printf", "[%s]", *words])
        assert result.output == "".join(f"[{word}]" for word in words)

    async def test_a_program_that_is_not_there_is_127(self) -> None:
        """As in every shell, and standard error says which."""
        result = await run(["no-such-program"])
        assert result.exit_code == 127
        assert "no-such-program" in result.stderr

    async def test_a_directory_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        """What the system would not start is no result; the error says where and why."""
        with pytest.raises(CommandNotStarted, match="missing"):
            await run("true", cwd=tmp_path / "missing")

    async def test_a_signal_is_named(self) -> None:
        """A command that a signal ended has the shell's code and the signal's number."""
        result = await run("kill -USR1 $$")
        assert (result.exit_code, result.signal) == (128 + signal.SIGUSR1, signal.SIGUSR1)

    async def test_it_has_no_input_a_session_of_its_own_and_only_its_environment(self, tmp_path: Path) -> None:
        """Nothing waits at a terminal, nothing of ours leaks in."""
        os.environ["LEAK"] = "yes"
        try:
            result = await run(
                "cat; env; ps -o pid=,pgid=,sid= -p $$; pwd; ls /proc/self/fd",
                env=ENV | {"MINE": "1"},
                cwd=tmp_path,
            )
        finally:
            del os.environ["LEAK"]
        lines = result.output.splitlines()
        assert "MINE=1" in lines
        assert "LEAK=yes" not in lines
        pid, group, session = next(line.split() for line in lines if line.strip()[:1].isdigit())
        assert pid == group == session
        assert str(tmp_path) in lines
        assert lines[lines.index(str(tmp_path)) + 1 :] == ["0", "1", "2", "3"], "one is the listing's own"

    async def test_text_that_is_none_is_replaced(self) -> None:
        """Bytes that are no UTF-8 become replacement characters."""
        result = await run(r"printf 'a\377b'")
        assert result.output == "a\N{REPLACEMENT CHARACTER}b"

    async def test_output_comes_while_it_runs(self, tmp_path: Path) -> None:
        """Pieces are handed on as they come: the command ends only after we saw its first word."""
        pieces: list[bytes] = []
        gate = tmp_path / "gate"

        def on_output(piece: bytes) -> None:
            pieces.append(piece)
            if "é".encode() in b"".join(pieces):
                gate.touch()

        line = r"printf '\303'; printf '\251\n' >&1; while [ ! -e gate ]; do :; done; echo end"
        result = await run(line, cwd=tmp_path, on_output=on_output, timeout=WITHIN)
        assert b"".join(pieces).decode() == "é\nend\n" == result.output


class TestLimits:
    """What ends a command that does not end by itself."""

    async def test_too_long_output_keeps_head_and_tail(self) -> None:
        """Both ends are kept and the size of the gap is said."""
        result = await run("echo first; head -c 100000 /dev/zero | tr '\\0' x; echo last", output_limit=1000)
        assert result.truncated
        assert result.output.startswith("first\n")
        assert result.output.endswith("xlast\n")
        assert f"{6 + 100000 + 5 - 1000} bytes left out" in result.output
        assert result.exit_code == 0

    @pytest.mark.parametrize("size", [999, 1000, 1001])
    async def test_output_at_the_limit_is_whole(self, size: int) -> None:
        """Up to the limit nothing is left out."""
        result = await run(f"head -c {size} /dev/zero | tr '\\0' x", output_limit=1000)
        assert result.truncated is (size > 1000)
        assert result.output.count("x") == min(size, 1000)

    async def test_output_without_end_is_ended(self) -> None:
        """A command that writes more than it may is ended, not waited for."""
        result = await run("yes", output_max=5_000_000)
        assert result.overflowed
        assert result.signal == signal.SIGTERM

    async def test_a_command_that_never_ends_is_ended(self) -> None:
        """The time limit ends it, and what it said until then is kept."""
        result = await run("echo hello; sleep 1000", timeout=STARTED)
        assert result.timed_out
        assert result.output == "hello\n"
        assert result.duration < WITHIN

    async def test_who_ignores_the_request_is_killed_with_all_children(self, pids: Path) -> None:
        """SIGTERM, a grace period, SIGKILL: for every process of the group."""
        line = f"trap '' TERM; (trap '' TERM; sleep 1000) & echo $$ $! >{pids}; while :; do sleep 1000; done"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(line, timeout=STARTED, term_grace=0.1))
            found = await running(pids)
        assert task.result().timed_out
        assert task.result().signal == signal.SIGKILL
        for pid in found:
            await gone(pid)

    async def test_who_cleans_up_in_time_may(self) -> None:
        """The grace period is for last words."""
        result = await run("trap 'echo cleaned; exit 7' TERM; while :; do sleep 0.01; done", timeout=STARTED)
        assert (result.timed_out, result.exit_code, result.output) == (True, 7, "cleaned\n")

    async def test_a_child_left_behind_ends_with_its_command(self, tmp_path: Path) -> None:
        """A background process that keeps the pipe open neither holds us up nor stays."""
        result = await run("sleep 1000 & echo $! >pid; echo done", cwd=tmp_path, timeout=WITHIN)
        assert (result.output, result.exit_code, result.timed_out) == ("done\n", 0, False)
        await gone(int((tmp_path / "pid").read_text()))

    async def test_a_process_that_left_the_group_does_not_hold_us_up(self, pids: Path) -> None:
        """What went into a session of its own is out of reach, but not waited for."""
        leaves = f"setsid sh -c 'touch left; echo $$ >{pids}; exec sleep 1000' & until [ -e left ]; do sleep 0.01; done"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(f"{leaves}; echo done", cwd=pids.parent, timeout=WITHIN))
            (pid,) = await running(pids)
        os.kill(pid, signal.SIGKILL)
        assert (task.result().output, task.result().timed_out) == ("done\n", False)

    @pytest.mark.parametrize("times", [1, 2])
    async def test_a_cancelled_caller_s_command_ends_whole(self, pids: Path, times: int) -> None:
        """Cancellation passes after the group was ended; a second one in the grace period cuts that short."""
        line = f"trap '' TERM; sleep 1000 & echo $$ $! >{pids}; while :; do sleep 1000; done"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(line, term_grace=0.1 if times == 1 else 1000.0))
            found = await running(pids)
            for _ in range(times):
                task.cancel()
                # Twice: the cancellation is delivered, and what it woke runs to its next wait.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert task.cancelled()
        for pid in found:
            await gone(pid)

    async def test_nothing_is_left_open(self) -> None:
        """Descriptors and processes are given back, however a command ended."""
        await run("true")
        before = descriptors()
        await run("true")
        await run("sleep 1000", timeout=0.05)
        await run("yes", output_max=1000)
        with pytest.raises(CommandNotStarted):
            await run("true", cwd="/nonexistent")
        assert descriptors() == before
        # The keeper is the only child, and it runs.
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


class TestKeeper:
    """The small shell that ends commands whose hive was killed."""

    async def test_a_keeper_that_was_killed_is_replaced(self, pids: Path) -> None:
        """Running commands go on, and the next keeper knows them."""
        await run("true")
        keeper = lifeline._keeper
        assert keeper is not None
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(f"echo $$ >{pids}; exec sleep 1000", timeout=WITHIN))
            (pid,) = await running(pids)
            keeper.kill()
            await gone(keeper.pid)
            assert (await run("echo again")).output == "again\n"
            assert lifeline._keeper is not keeper
            # What would happen if this process died now: the pipe is closed.
            lifeline._close()
            await gone(pid)
        assert task.result().signal == signal.SIGKILL
        assert (await run("echo again")).output == "again\n"

    async def test_a_keeper_that_dies_at_the_start_stops_nobody(self) -> None:
        """A command that finds nobody to register with runs all the same."""
        await run("true")
        keeper = lifeline._keeper
        assert keeper is not None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run("echo done", timeout=WITHIN)) for _ in range(20)]
            await asyncio.sleep(0)
            keeper.kill()
        assert {task.result().output for task in tasks} == {"done\n"}
        assert {task.result().stderr for task in tasks} == {""}

    @pytest.mark.may_block("it waits for a child that ends at once, or when its coverage is written")
    async def test_a_forked_child_keeps_nobody(self) -> None:
        """A child made by fork holds no end of the pipe: this process's end is still seen as such."""
        await run("true")
        end = lifeline._end
        with warnings.catch_warnings():
            # From 3.12 on: forking beside threads may deadlock the child, which here does nothing but look.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                os.fstat(end)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert (await run("echo fine")).output == "fine\n"

    async def test_without_process_descriptors_a_thread_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On systems without them everything else is the same."""
        monkeypatch.delattr(os, "pidfd_open")
        result = await run("echo out; exit 3")
        assert (result.output, result.exit_code) == ("out\n", 3)
        assert (await run("sleep 1000", timeout=0.1)).timed_out


async def test_it_runs_on_other_loops() -> None:
    """Any loop that watches readers will do, in any thread."""

    def elsewhere() -> CommandResult:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.PollSelector())) as runner:
            return runner.run(run("echo out; exit 3"))

    result = await asyncio.to_thread(elsewhere)
    assert (result.output, result.exit_code) == ("out\n", 3)
