"""A process in which everything that `hive` imports is loaded already; each command is a fork of it. Started by `tests.support.forks`.

To start a command takes ten times as long as most of them work. A fork has its own standard streams, directory and environment, and ends
as a process of its own does. The process here has one thread and no event loop, and never opens a database.
"""

from __future__ import annotations

import gc
import json
import os
import posix
import signal
import socket
import sys
import time
from importlib import import_module
from pathlib import Path

from dashboard.cli.app import MODULES, run

# What the commands load when they are called.
LOADED = (
    "agents.hive",
    "dashboard.demo",
    "dashboard.views",
    "hive_bus.bus",
    "hive_bus.opening",
    "hive_bus.replay",
    "hive_core_db.audit",
    "hive_core_db.postgres.store",
    "hive_core_db.sqlite.store",
    "rich.console",
)
LONGEST = 1 << 17


def load() -> None:
    """Import what commands import."""
    for name in (*(f"dashboard.cli.{module}" for module in MODULES), *LOADED):
        import_module(name)
    gc.freeze()


def serve(control: socket.socket) -> list[str]:
    """Fork for each request; returns in each fork: the command's words. The process itself ends when nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks here are nobody's to wait for
    while True:
        said, descriptors, _, _ = socket.recv_fds(control, LONGEST, 4)
        if not said:
            posix._exit(0)  # `os._exit` would write what was covered, which the forks have written
        if os.fork() == 0:
            control.close()
            return _command(json.loads(said), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _command(asked: dict[str, object], answer: int, *streams: int) -> list[str]:
    """Fork once more: the parent says the command's process and how it ended, the child goes on as the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        for stream in streams:
            os.close(stream)
        os.write(answer, f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        os.write(answer, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        posix._exit(0)
    os.close(answer)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those made at the start have found out what kind of file they write to, which these need not be.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - they stay open
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - they stay open
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 - they stay open
    os.chdir(str(asked["directory"]))
    os.environ.clear()
    os.environ.update(dict(asked["environment"]))  # type: ignore[call-overload]  # it is a dictionary of texts
    time.tzset()
    words = asked["words"]
    assert isinstance(words, list)
    return words


if __name__ == "__main__":
    load()
    hive, *words = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path.insert(0, str(Path(hive).parent))
    sys.argv = [hive, *words]
    run()
