"""Child processes that measure when told: a line in, a line out, both JSON.

The child's half uses the standard library only, so that a peer's environment can run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LONGEST = 600.0


async def serve(verbs: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Answer ``[verb, arguments]`` lines of standard input until it ends."""
    loop = asyncio.get_running_loop()
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, arguments = json.loads(line)
        print(json.dumps(await verbs[verb](**arguments)), flush=True)


class Child:
    """The parent's half."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._talk = asyncio.Lock()

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """The child's answer; RuntimeError when it ended instead, TimeoutError after ten minutes."""
        assert self._process.stdin is not None
        async with self._talk:
            self._process.stdin.write(json.dumps([verb, arguments]).encode() + b"\n")
            return await self.answer()

    async def answer(self) -> Any:
        """The next line it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LONGEST):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child ended with code {await self._process.wait()}")
        return json.loads(line)

    async def kill(self) -> None:
        """End it as a crash would: SIGKILL for it and for what it started."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def close(self) -> None:
        """Let it end by itself; kill it when that takes longer than ten seconds."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


@asynccontextmanager
async def child(module: str, *arguments: str, python: str | Path = sys.executable) -> AsyncIterator[Child]:
    """``python -m module arguments``, ready to be asked; it leads a process group of its own."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        start_new_session=True,
    )
    one = Child(process)
    try:
        await one.answer()
        yield one
    finally:
        await one.close()
