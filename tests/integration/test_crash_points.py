"""A process that dies at any suspension of bus, host, hands or clock loses nothing and doubles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.unmeasured import unmeasured

FLOOR = 150
SHARE = 9
"""On PostgreSQL every ninth point, where a point takes several times as long; a soak takes every one."""


@pytest.mark.timeout(3600)
def test_death_at_any_suspension(
    tmp_path: Path,
    database: str,
    request: pytest.FixtureRequest,
    fault_seconds: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It dies at the n-th suspension, n = 1, 2, 3 ..., resumes, completes, and the auditor finds nothing."""
    is_soak = fault_seconds > DEFAULT_FAULT_SECONDS
    stride = SHARE if database == "postgres" and not is_soak else 1
    server = [] if database == "sqlite" else [request.getfixturevalue("postgres_servers").server_url()]
    arguments = [str(tmp_path), "3" if is_soak else "1", str(stride), *server]
    command = [sys.executable, "-m", "tests.support.crash_points", *arguments]
    # Hundreds of children die in a row: measuring each would take minutes, and they run what other tests measure.
    env = unmeasured()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == [], done.stderr
    assert report["survived"], "the run never got to its end"
    with capsys.disabled():
        sys.stdout.write(f" [died at {report['points']} of {report['last'] - stride} suspensions] ")
    assert report["last"] > FLOOR
    assert report["points"] == report["last"] // stride - 1
