"""The servers that tests stand on: new databases, a server that is killed and comes back, and nothing that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import NewDatabase
from tests.support.patience import WITHIN
from tests.support.postgres import SERVER_VARIABLE, VERSIONS, OwnServer, psql

# A test run that starts a server and says where; then it waits for its end.
ORPHANED = """
import sys
from tests.support.postgres import OwnServer
server = OwnServer()
server.start()
print(server.directory, (server.data / "postmaster.pid").read_text().split()[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_gives_new_databases(new_database: NewDatabase, version: int) -> None:
    """Both versions are real, and each database is empty and a test's own."""
    first, second = new_database(version), new_database(version)
    assert first != second
    assert SERVER_VARIABLE in os.environ or psql(first, "SHOW server_version").startswith(f"{version}.")
    psql(first, "CREATE TABLE crumbs (crumb int)")
    assert psql(second, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"


def test_a_killed_server_comes_back_with_what_was_committed() -> None:
    """After kill -9 of all its processes the server starts on the same data, on the same socket and the same port."""
    with OwnServer(tcp=True) as server:
        server.sql("CREATE TABLE crumbs (crumb int); INSERT INTO crumbs VALUES (7)")
        server.restart()
        assert server.sql("SELECT crumb FROM crumbs") == "7"
        assert psql(server.url(tcp=True), "SELECT inet_server_port()") == str(server.port)
        with pytest.raises(RuntimeError, match="password"):
            psql(server.url(tcp=True).replace(":queen@", ":drone@"), "SELECT 1")
    assert not server.directory.exists()


def test_a_killed_test_run_leaves_no_server_behind() -> None:
    """The guard ends the server and removes its directory when the run that started it is killed -9."""
    run = subprocess.Popen(
        [sys.executable, "-c", ORPHANED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert run.stdout is not None
    assert run.stdin is not None
    directory, pid = run.stdout.readline().split()
    postmaster = psutil.Process(int(pid))
    guard = postmaster.parent()
    assert guard is not None
    run.send_signal(signal.SIGKILL)
    run.communicate()
    gone, alive = psutil.wait_procs([postmaster, guard], timeout=WITHIN)
    assert (len(gone), alive) == (2, [])
    assert not Path(directory).exists()
