"""Runs commands and measures itself: ``python -m tests.support.command_run flood|many|orphan ARGUMENT``.

A process of its own, so that its memory, its descriptors and its end are about nothing else. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

from agents.process import run_command

ENV = {"PATH": os.environ["PATH"]}


def peak() -> int:
    """The most memory this process ever had, in bytes; `ru_maxrss` would count what its parent had when it forked."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def flood(size: str) -> dict[str, object]:
    """Run a command that writes so much, and say what that cost."""
    await run_command("true", cwd="/", env=ENV)
    before = peak()
    result = await run_command(f"yes | head -c {size}", cwd="/", env=ENV)
    return {"memory": peak() - before, "kept": len(result.output), "truncated": result.truncated}


async def many(count: str) -> dict[str, object]:
    """Run so many commands at once, none of which ends before all run, and say what that cost."""
    number = int(count)
    # A quarter of what they need: the limit must be raised, and given to no command.
    soft = min(number, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    await run_command("true", cwd="/", env=ENV)
    before = descriptors()
    gate, started = Path(sys.argv[3]), Path(f"{sys.argv[3]}.started")
    os.mkfifo(gate)
    os.mkfifo(started)
    # For reading and writing: a named pipe with no writer would be at its end.
    told = os.open(started, os.O_RDWR | os.O_NONBLOCK)
    count_down = asyncio.Semaphore(0)

    def seen() -> None:
        for _ in os.read(told, 65536):
            count_down.release()

    asyncio.get_running_loop().add_reader(told, seen)

    async def one() -> tuple[int, str]:
        # Opening a named pipe for reading waits for its writer.
        result = await run_command(f"printf x >{started}; read _ <{gate}; ulimit -Sn", cwd="/", env=ENV)
        return result.exit_code, result.output.strip()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(number)]
        for _ in range(number):
            await count_down.acquire()
        # A line for each: one that has not opened the gate yet finds its own there.
        opened = os.open(gate, os.O_RDWR)
        os.write(opened, b"\n" * number)
    asyncio.get_running_loop().remove_reader(told)
    os.close(told)
    os.close(opened)
    outcomes = {task.result() for task in tasks}
    return {"memory": peak(), "leaked": descriptors() - before, "outcomes": sorted(outcomes), "soft": soft}


async def orphan(pids: str) -> dict[str, object]:
    """Start a command with children that no terminal signal ends, and die by SIGKILL while it runs."""
    told = f"{pids}.told"
    os.mkfifo(told)
    line = f"trap '' TERM HUP INT; sleep 1000 & echo $$ $! >{pids}; echo >{told}; sleep 1000; sleep 1000"
    async with asyncio.TaskGroup() as group:
        group.create_task(run_command(line, cwd="/", env=ENV))
        await asyncio.to_thread(Path(told).read_text)
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


if __name__ == "__main__":
    what = {"flood": flood, "many": many, "orphan": orphan}[sys.argv[1]]
    sys.stdout.write(json.dumps(asyncio.run(what(sys.argv[2]))) + "\n")
