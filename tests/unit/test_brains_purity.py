"""The guard that scenarios put around brains does catch what it should."""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.purity import Impure, pure


@pytest.mark.parametrize(
    "reach",
    [
        lambda: time.monotonic().__class__,
        lambda: random.random().__class__,
        lambda: uuid.uuid4().__class__,
        lambda: os.urandom(1),
        lambda: Path(__file__).read_text(),
        lambda: list(Path().iterdir()),
        lambda: socket.socket().close(),
    ],
)
def test_the_world_is_out_of_reach_inside_a_brain(reach: Callable[[], object]) -> None:
    """Clock, randomness, ids, files, directories and sockets."""
    with pytest.raises(Impure), pure():
        reach()


def test_the_world_is_back_outside() -> None:
    """The guard leaves nothing behind, also after it has struck."""
    with pytest.raises(Impure), pure():
        time.time()
    assert time.time() > 0
    assert Path(__file__).read_text()
