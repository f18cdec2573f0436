"""The purity guard: inside a brain, clocks, randomness, files, sockets and processes raise.

Owns ``pure()``, which scenarios put around every ``evolve`` and ``decide``. What a
brain reaches by import is forbidden by the import contract; this catches the rest.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

_FORBIDDEN_CALLS: Final[tuple[tuple[Any, str], ...]] = (
    (time, "time"),
    (time, "time_ns"),
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (time, "perf_counter"),
    (time, "sleep"),
    (random, "random"),
    (random, "randint"),
    (random, "choice"),
    (random, "shuffle"),
    (uuid, "uuid1"),
    (uuid, "uuid4"),
    (os, "urandom"),
    (os, "getpid"),
    (os, "getenv"),
)
_FORBIDDEN_EVENTS: Final = ("open", "socket.", "subprocess.", "os.", "shutil.", "sqlite3.")


class Impure(AssertionError):
    """A brain reached for the world."""


_inside: list[bool] = [False]
# Canonical JSON sorts its keys with this codec, and Python reads a codec's module on first use.
"".encode("utf_16_be")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _inside[0] and event.startswith(_FORBIDDEN_EVENTS):
        _inside[0] = False
        raise Impure(f"{event}{arguments!r}")


sys.addaudithook(_watch)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*arguments: object, **named: object) -> NoReturn:
        raise Impure(f"{name} was called")

    return refused


_REFUSED: Final = tuple(
    (owner, name, getattr(owner, name), _refuse(f"{owner.__name__}.{name}")) for owner, name in _FORBIDDEN_CALLS
)


@contextmanager
def pure() -> Iterator[None]:
    """Nothing inside may look at the world; raises :class:`Impure` where it does."""
    for owner, name, _, refused in _REFUSED:
        setattr(owner, name, refused)
    _inside[0] = True
    try:
        yield
    finally:
        _inside[0] = False
        for owner, name, real, _ in _REFUSED:
            setattr(owner, name, real)
