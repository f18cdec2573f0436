"""Runs a command with limits on time and output, and ends it whole.

It owns processes: their group, their pipes, their end. It must not know tools, policies or
workspaces. A command gets a session of its own, an empty standard input and exactly the
environment it is given. Whatever ends it (its own exit, the timeout, too much output, a
cancelled caller, the death of this process) ends its whole process group.

It reads pipes and process descriptors itself instead of using ``asyncio.subprocess``:
memory per command is bounded whatever it writes, a grandchild that keeps the pipe open
holds nobody up, no thread is used per command, and it works on any loop with readers.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents import lifeline
from hive_errors import CommandNotStarted

__all__ = ["OUTPUT_LIMIT", "CommandResult", "run_command"]

OUTPUT_LIMIT: Final = 64 * 1024
"""Bytes kept of each stream, half from its beginning and half from its end."""

_CHUNK: Final = 64 * 1024
# A pipe holds one chunk; some more, for a writer that is not done while we read, and an end for one that never is.
_CHUNKS_IN_A_PIPE: Final = 4
# What an exited command's children may still have to say, in seconds, before they are ended with it.
_LAST_WORDS: Final = 0.3
_FDS_PER_COMMAND: Final = 3
_FDS_FOR_OTHERS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended.

    Attributes:
        exit_code: As a shell gives it: 128 + number for a signal, 127 for a program that was not found.
        output: Standard output, decoded as UTF-8 with replacements; head and tail where it was too long.
        stderr: Standard error, likewise.
        truncated: Whether something was left out of ``output`` or ``stderr``.
        timed_out: Whether the time limit ended it.
        overflowed: Whether the limit on all output (``output_max``) ended it.
        duration: Seconds from start to end.
        signal: The number of the signal that ended its first process, None for an exit.
    """

    exit_code: int
    output: str
    stderr: str
    truncated: bool
    timed_out: bool
    overflowed: bool
    duration: float
    signal: int | None


async def run_command(
    command: str | Sequence[str],
    *,
    cwd: Path | str,
    env: Mapping[str, str],
    timeout: float | None = None,
    output_limit: int = OUTPUT_LIMIT,
    output_max: int | None = None,
    on_output: Callable[[bytes], None] | None = None,
    term_grace: float = 2.0,
) -> CommandResult:
    """Run a command to its end and return what it said.

    Args:
        command: A line for ``/bin/sh``, or the program and its arguments.
        cwd: The directory to run it in.
        env: Its whole environment; nothing is inherited.
        timeout: Seconds until it is ended; None never ends it.
        output_limit: Bytes kept of each stream; the middle is left out and its size said.
        output_max: Bytes on both streams together after which it is ended; None never ends it.
        on_output: Called on the loop with each piece of either stream as it comes, in bytes.
        term_grace: Seconds between SIGTERM and SIGKILL.

    Raises:
        CommandNotStarted: The system would not start it: no such directory, no processes or open files left.
        asyncio.CancelledError: As it came, after the whole group was ended.
    """
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    running = _Running(loop, output_limit=output_limit, output_max=output_max, on_output=on_output)
    try:
        running.start(_argv(command), cwd=cwd, env=env)
        timed_out = not await _within(timeout, running.ended)
        if timed_out or running.overflowed:
            running.kill(signal.SIGTERM)
            await _within(term_grace, running.exited)
        if not await _within(_LAST_WORDS, running.silent):
            running.drain()
    except asyncio.CancelledError:
        running.kill(signal.SIGTERM)
        await _within(term_grace, running.exited)
        raise
    finally:
        # No await from here on: a second cancellation must not leave a process or a descriptor behind.
        returncode = running.close()
    number = -returncode if returncode < 0 else None
    return CommandResult(
        exit_code=returncode if number is None else 128 + number,
        output=running.stdout.text(),
        stderr=running.stderr.text(),
        truncated=running.stdout.left_out > 0 or running.stderr.left_out > 0,
        timed_out=timed_out,
        overflowed=running.overflowed,
        duration=time.monotonic() - started,
        signal=number,
    )


class _Kept:
    """The head and the tail of a stream, in bounded memory."""

    __slots__ = ("_half", "_head", "_on_output", "_tail", "total")

    def __init__(self, limit: int, on_output: Callable[[bytes], None] | None) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._on_output = on_output
        self.total = 0

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        if self._on_output is not None:
            self._on_output(chunk)
        room = self._half - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk[-self._half :]
        if len(self._tail) > self._half:
            del self._tail[: -self._half]

    @property
    def left_out(self) -> int:
        return self.total - len(self._head) - len(self._tail)

    def text(self) -> str:
        if self.left_out == 0:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = self._head.decode("utf-8", "replace"), self._tail.decode("utf-8", "replace")
        return f"{head}\n[... {self.left_out} bytes left out ...]\n{tail}"


class _Running:
    """A started command: its group, its two pipes, its end."""

    in_flight = 0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        output_limit: int,
        output_max: int | None,
        on_output: Callable[[bytes], None] | None,
    ) -> None:
        self._loop = loop
        self._output_max = output_max
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: dict[int, _Kept] = {}
        self._pidfd = -1
        self.stdout = _Kept(output_limit, on_output)
        self.stderr = _Kept(output_limit, on_output)
        self.overflowed = False
        self.exited = asyncio.Event()  # the first process is dead, not yet reaped
        self.silent = asyncio.Event()  # both pipes are closed at their other ends
        self.ended = asyncio.Event()  # exited, or to be ended because of too much output

    def start(self, argv: Sequence[str], *, cwd: Path | str, env: Mapping[str, str]) -> None:
        soft = _make_room(type(self).in_flight)
        writers: list[int] = []
        try:
            for kept in (self.stdout, self.stderr):
                reader, writer = os.pipe()
                self._pipes[reader] = kept
                writers.append(writer)
                os.set_blocking(reader, False)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", lifeline.STARTER, "sh", soft, *argv],
                stdin=lifeline.open_end(),
                stdout=writers[0],
                stderr=writers[1],
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            raise CommandNotStarted(command=shlex.join(argv)[:200], cwd=str(cwd), reason=str(problem)) from problem
        finally:
            for writer in writers:
                os.close(writer)
        type(self).in_flight += 1
        lifeline.remember(self._process.pid)
        for reader in self._pipes:
            self._loop.add_reader(reader, self._read, reader)
        self._watch(self._process.pid)

    def _watch(self, pid: int) -> None:
        try:
            self._pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # No process descriptors here (not Linux, or an old one): a thread waits without reaping.
            threading.Thread(target=self._wait_in_thread, args=(pid,), daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._on_exit)

    def _wait_in_thread(self, pid: int) -> None:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return
        try:
            self._loop.call_soon_threadsafe(self._on_exit)
        except RuntimeError:
            return  # the loop was closed meanwhile; `close` has ended the command

    def _on_exit(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        self.exited.set()
        self.ended.set()

    def _read(self, reader: int) -> None:
        try:
            chunk = os.read(reader, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(reader)
            os.close(reader)
            del self._pipes[reader]
            if not self._pipes:
                self.silent.set()
            return
        self._pipes[reader].add(chunk)
        if self._output_max is not None and self.stdout.total + self.stderr.total > self._output_max:
            self.overflowed = True
            self.ended.set()

    def drain(self) -> None:
        """Read what is already in the pipes: a busy loop may not have come to it in time."""
        for reader in list(self._pipes):
            for _ in range(_CHUNKS_IN_A_PIPE):
                if reader in self._pipes:
                    self._read(reader)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; the leader is not reaped yet, so the number is still its own."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # everybody in the group is gone (macOS says EPERM for a zombie)

    def close(self) -> int:
        """End what is left of the group, reap it, and give every descriptor back; the first process's return code."""
        for reader in self._pipes:
            self._loop.remove_reader(reader)
            os.close(reader)
        self._pipes.clear()
        process = self._process
        if process is None:
            return 0
        self.kill(signal.SIGKILL)
        lifeline.forget(process.pid)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        type(self).in_flight -= 1
        return _reap(process)


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Collect a process that exited or was just sent SIGKILL; one that a dead disk holds back is left to a thread."""
    try:
        return process.wait(0.1)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, daemon=True).start()
        return -signal.SIGKILL


def _argv(command: str | Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)


def _make_room(in_flight: int) -> str:
    """Raise the soft limit of open files where so many commands need it; what the child's must be, or nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _Limits.own is None:
        _Limits.own = soft
    wanted = (in_flight + 1) * _FDS_PER_COMMAND + _FDS_FOR_OTHERS
    if wanted > soft != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * wanted, hard) if hard >= 0 else 2 * wanted, hard))
        except (OSError, ValueError) as problem:
            raise CommandNotStarted(
                command="(any)",
                cwd=".",
                reason=f"{errno.errorcode[errno.EMFILE]}: {soft} open files allowed: {problem}",
            ) from problem
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return str(_Limits.own) if soft != _Limits.own else ""


class _Limits:
    """The soft limit of open files as this process found it: commands get that one, whatever we raised ours to."""

    own: int | None = None


async def _within(seconds: float | None, event: asyncio.Event) -> bool:
    """Wait for an event; whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
