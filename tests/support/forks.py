"""Runs `hive` as forks of one process that has imported everything, see `tests.support.forks_server`: a tenth of a second for each, not one.

Docs' sessions, commands that stay and commands on a terminal are started as a shell starts them; so is what has an environment of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path


class Forks:
    """One such process, started when first asked, for commands whose environments all measure what they cover, or all do not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def run(
        self, words: Sequence[str], directory: Path, environment: Mapping[str, str], *, within: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a directory, with nothing to read, and wait for its end; raises TimeoutExpired as `subprocess.run` does."""
        asked = {"words": list(words), "directory": str(directory), "environment": dict(environment)}
        with ExitStack() as stack:
            pairs = [os.pipe() for _ in range(4)]
            (answer, answering), (reading, writing), (out, to_out), (err, to_err) = pairs
            ours, theirs = [answer, out, err], [answering, reading, to_out, to_err]
            for descriptor in ours:
                stack.callback(os.close, descriptor)
            try:
                os.close(writing)
                socket.send_fds(self._ready(environment), [json.dumps(asked).encode()], theirs)
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            ended, text, complaints = _everything(ours, list(words), within)
        return subprocess.CompletedProcess(list(words), int(ended.split()[1]), _text(text), _text(complaints))

    def close(self) -> None:
        """End the process, if there is one."""
        if self._server is not None and self._control is not None:
            self._control.close()
            self._server.kill()  # it has nothing to say
            self._server.wait()
            self._server = None

    def _ready(self, environment: Mapping[str, str]) -> socket.socket:
        with self._lock:
            if self._server is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    # Not as a module: the directory it is started in would be the first to be imported from.
                    self._server = subprocess.Popen(
                        [sys.executable, "-P", Path(__file__).with_name("forks_server.py"), str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                    )
            assert self._control is not None
            return self._control


def _everything(descriptors: Sequence[int], words: Sequence[str], within: float) -> list[bytes]:
    """What comes from each descriptor until its end."""
    found = dict.fromkeys(descriptors, b"")
    end = time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(end - time.monotonic(), 0))
            if not ready:
                answer = found[descriptors[0]] or os.read(descriptors[0], 64)
                with suppress(ProcessLookupError):
                    os.kill(int(answer.split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), within, *list(found.values())[1:])
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                found[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return list(found.values())


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n")


_forks = {True: Forks(), False: Forks()}


def forks(*, measured: bool) -> Forks:
    """Those whose commands are measured, or those whose are not."""
    return _forks[measured]


def close() -> None:
    """End both, when the tests have ended."""
    for each in _forks.values():
        each.close()
