"""Ports for the servers of tests, below those that the system gives to connections: one stays free while its server is down."""

from __future__ import annotations

import secrets
import socket
from itertools import count
from typing import Final

FIRST: Final = 15_000
ROOM: Final = 15_000

# Every process begins elsewhere, so that two of them seldom look at the same port.
_numbers = count(secrets.randbelow(ROOM))


def free_port() -> int:
    """A port that nobody listens to now, and that this process has not asked for before."""
    while True:
        port = FIRST + next(_numbers) % ROOM
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has it
        return port
