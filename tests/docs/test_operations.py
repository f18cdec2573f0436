"""docs/operations.md is run as it stands: its sessions, and what it says of PostgreSQL's own tools, with a real server."""

from __future__ import annotations

import difflib
import re
import subprocess
from pathlib import Path

import pytest

from dashboard.cli.app import ORDER
from dashboard.cli.db import Action
from tests.architecture.tree import ROOT
from tests.conftest import NewDatabase
from tests.docs.sessions import alike, fits, steps_of
from tests.support.console import Console
from tests.support.patience import WITHIN
from tests.support.postgres import QUICK, OwnServer, binaries

PAGES = [ROOT / "docs" / "operations.md", ROOT / "docs" / "many-processes.md"]
BLOCK = re.compile(r"^<!-- run: (?P<name>\w+) -->\n```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"`hive (?P<quoted>\w+(?: \w+)?)|^(?:\$ )?hive (?P<shown>\w+(?: \w+)?)", re.MULTILINE)


def blocks() -> dict[str, str]:
    """The blocks that the page says are run, by their names."""
    return {block["name"]: block["text"] for block in BLOCK.finditer(PAGES[0].read_text())}


def run(text: str, directory: Path, **variables: str) -> str:
    """Run a block as a shell would, with the hive's and PostgreSQL's programs on the path."""
    console = Console(directory)
    environment = console.environment | variables
    environment["PATH"] = f"{binaries(18)}:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", text],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sessions_are_what_happens(tmp_path: Path) -> None:
    """Each command writes what the page shows and ends with the code it says."""
    console = Console(tmp_path)
    for step in steps_of(PAGES[0]):
        done = subprocess.run(
            ["sh", "-c", step.command],
            cwd=tmp_path,
            env=console.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        if not fits(step.expected, done.stdout):
            difference = difflib.unified_diff(alike(step.expected), alike(done.stdout), "the page", "what was written")
            pytest.fail(f"operations.md:{step.line}: {step.command}\n" + "\n".join(difference), pytrace=False)
        assert done.returncode == step.code, step


def test_a_dump_and_a_restore_as_the_page_says(tmp_path: Path) -> None:
    """Dumped, restored into a new database, upgraded, audited; the first hive there begins a new epoch."""
    with OwnServer(18, settings=QUICK) as server:
        server.sql("CREATE DATABASE hive")
        places = {"DATABASE": server.url("hive"), "SERVER": server.url(), "RESTORED": server.url("hive_restored")}
        variables = places | {"PGHOST": str(server.directory), "PGUSER": "hive"}
        console = Console(tmp_path, places["DATABASE"])
        assert console("publish", "order.placed", "{}", "--raw").code == 0
        run(blocks()["dump"], tmp_path, **variables)
        assert "every invariant holds" in run(blocks()["restore"], tmp_path, **variables)
        restored = Console(tmp_path, places["RESTORED"])
        assert restored("publish", "order.placed", "{}", "--raw", "--json").json[0]["position"] > 1_000_000
        assert restored("audit").code == 0
        run(blocks()["base"], tmp_path, **variables)
        assert (tmp_path / "base" / "PG_VERSION").read_text() == "18\n"


def test_a_move_as_the_page_says(new_database: NewDatabase, tmp_path: Path) -> None:
    """From the file to the server, audited and counted there."""
    console = Console(tmp_path)
    assert console("publish", "order.placed", "{}", "--raw").code == 0
    said = run(blocks()["copy"], tmp_path, TARGET=new_database())
    assert "both sides have the digest" in said
    assert "every invariant holds" in said


def test_every_block_is_run() -> None:
    """A block that is added needs a test that runs it."""
    assert set(blocks()) == {"dump", "base", "restore", "copy"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_is_named_exists(page: Path) -> None:
    """`hive X` is a command, and after `hive db` stands something that it does."""
    named = {match["quoted"] or match["shown"] for match in COMMAND.finditer(page.read_text())}
    assert named
    for words in named:
        name, _, action = words.partition(" ")
        assert name in ORDER, words
        assert name != "db" or action in list(Action), words
