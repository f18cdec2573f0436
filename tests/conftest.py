"""What every test stands on: a clean environment, addresses of new hives, and rules that fail a test.

* A test that blocks the event loop fails, with the place (`tests/watchdog.py`); mark it `may_block("why")` where that is its point.
* Nothing is skipped where ``CI`` is set: a skipped test fails the run.
* Variables of the hive and keys of model providers are removed: no test reads a real database or calls a real model.
* A test that asks for a hive's address runs on every database in `DATABASES`, unless `sqlite_only("why")` says what is special about it.
  Simulations have a time of their own, in which no server could answer: they run on SQLite, inline.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import HealthCheck, settings

from hive_core_db.engine import open_store
from tests.support import forks
from tests.support.postgres import SERVER_VARIABLE, Databases, Servers
from tests.watchdog import LoopWatchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

FAULT_SECONDS_VARIABLE = "HIVE_FAULT_SECONDS"
FAULT_SEED_VARIABLE = "HIVE_FAULT_SEED"
DEFAULT_FAULT_SECONDS = 2.0
TIMEOUT = 300.0
KEPT_VARIABLES = {FAULT_SECONDS_VARIABLE, FAULT_SEED_VARIABLE, SERVER_VARIABLE}
DATABASES = ("sqlite", "postgres")
"""What every test with a hive runs on; `postgres` is the newest version, the contract suite runs on the older one too."""

_WATCHDOG = pytest.StashKey[LoopWatchdog]()


def pytest_configure(config: pytest.Config) -> None:
    """Remove what could lead a test to somebody's real hive or model, choose hypothesis' profile, and start to count skips."""
    for name in list(os.environ):
        is_ours = name.startswith("HIVE_") and name not in KEPT_VARIABLES
        if is_ours or name.startswith(("ANTHROPIC_", "CLAUDE_", "OTEL_")):
            del os.environ[name]
    # No deadlines: a busy machine is no bug. A soak looks at fifty times as many examples.
    settings.register_profile("hive", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("soak", settings.get_profile("hive"), max_examples=5000)
    settings.load_profile("soak" if _fault_seconds() > DEFAULT_FAULT_SECONDS else "hive")
    # Who is started in the background by a script ignores Ctrl-C, and so would every program that a test starts and ends by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(SkipCount(), "skip-count")


def pytest_unconfigure() -> None:
    """End the processes that commands were forks of."""
    forks.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a hive's address once on each kind of database."""
    if "database" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("sqlite_only")
        metafunc.parametrize("database", ("sqlite",) if only else DATABASES, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a fault suite the time that it was asked to run, on top of the usual limit; what has a limit of its own comes first.

    Those are the long ones: begun last, one of them would keep all but one process waiting.
    """
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    for item in items:
        if "fault_seconds" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT + 3 * _fault_seconds()))


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Watch every event loop while the tests run."""
    with LoopWatchdog() as watchdog:
        session.config.stash[_WATCHDOG] = watchdog
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that blocked its event loop, in its body or in its set-up."""
    return (yield from _unblocked(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose fixtures block the event loop when they are closed."""
    return (yield from _unblocked(item))


def _unblocked(item: pytest.Item) -> Generator[None, object, object]:
    findings: list[str] = []
    try:
        outcome = yield
    finally:
        # Also after a failure: what this test did must not be laid at the next one's door.
        findings += item.config.stash[_WATCHDOG].drain()
    if findings and item.get_closest_marker("may_block") is None:
        pytest.fail("the event loop was blocked: " + "\n".join(findings), pytrace=False)
    return outcome


class SkipCount:
    """Counts skipped tests, and fails the run where ``CI`` is set and something was skipped."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what was skipped."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember modules that were skipped as a whole."""
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run where nothing may be skipped and something was."""
        if self._is_a_failure() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how many tests were skipped, also when none was."""
        terminalreporter.write_line(f"skipped: {len(self.skipped)}")
        if self._is_a_failure():
            terminalreporter.write_line("FAILED: where CI is set nothing may be skipped")

    def _is_a_failure(self) -> bool:
        return bool(os.environ.get("CI")) and bool(self.skipped)


class NewDatabase(Protocol):
    """Makes an empty database on a real PostgreSQL server and returns its address."""

    def __call__(self, version: int = 18) -> str: ...


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Servers]:
    """The PostgreSQL servers of this run: started when first asked for, gone when the run ends."""
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def new_database(postgres_servers: Servers) -> Iterator[NewDatabase]:
    """As many empty PostgreSQL databases as a test asks for, dropped when it ends."""
    postgres_servers.databases().be_ready()  # a test may ask on its event loop, where nothing waits
    made: list[str] = []

    def new(version: int = 18) -> str:
        made.append(postgres_servers.new_database(version))
        return made[-1]

    yield new
    for url in made:
        postgres_servers.drop(url)


# A log as it was made, without what came into it: rows are deleted where they are few, for that is quicker than to truncate.
EMPTIED = """
DO $$
DECLARE name text;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('log_meta', 'epochs', 'alembic_version')
    LOOP
        IF pg_relation_size(name::regclass) > 200000 THEN
            EXECUTE 'TRUNCATE ' || name || ' CASCADE';
        ELSE
            EXECUTE 'DELETE FROM ' || name;
        END IF;
    END LOOP;
    DELETE FROM epochs WHERE epoch > 1;
    UPDATE log_meta SET epoch = 1, first_position = 1;
END $$;"""


@pytest.fixture(scope="session")
def new_logs(postgres_servers: Servers) -> Callable[[int], Databases]:
    """Makers of logs on PostgreSQL, by version: copies of one whose tables were made once, for that takes 70 ms."""
    from hive_core_db.postgres.identity import IDENTITY

    # A copy of a log is another database, where a new epoch would begin: this makes it a log of its own that was always there.
    renewed = (
        f"UPDATE log_meta SET log_id = md5(random()::text), database_id = ({IDENTITY}); "
        "UPDATE epochs SET epoch_id = md5(random()::text);"
    )

    def prepare(url: str) -> None:
        asyncio.run(_open_once(url))

    def makers(version: int) -> Databases:
        return postgres_servers.copies("log", prepare, renewed=renewed, emptied=EMPTIED, version=version)

    return makers


@pytest.fixture
def new_log(new_logs: Callable[[int], Databases]) -> Iterator[NewDatabase]:
    """As many new logs on PostgreSQL as a test asks for, tables and all."""
    new_logs(18).be_ready()
    made: list[tuple[int, str]] = []

    def new(version: int = 18) -> str:
        made.append((version, new_logs(version).new()))
        return made[-1][1]

    yield new
    for version, url in made:
        new_logs(version).drop(url)


async def _open_once(url: str) -> None:
    store = await open_store(url)
    await store.close()


@dataclass(frozen=True, slots=True)
class HiveUrls:
    """Makes addresses of new hives: SQLite files in ``directory`` that are not there yet, or what ``made`` gives."""

    directory: Path
    made: Callable[[], str] | None = None
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> str:
        """Return a new address."""
        if self.made is not None:
            return self.made()
        return f"sqlite:///{self.directory / f'hive-{next(self._numbers)}.db'}"


@pytest.fixture(scope="module")
def database() -> str:
    """The kind of database that the test runs on; `pytest_generate_tests` gives every kind in turn."""
    return DATABASES[0]


@pytest.fixture
def hive_urls(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> HiveUrls:
    """As many new hives as a test asks for."""
    if database == "sqlite":
        return HiveUrls(tmp_path)
    return HiveUrls(tmp_path, request.getfixturevalue("new_log"))


@pytest.fixture
def hive_url(hive_urls: HiveUrls) -> str:
    """The address of a new hive."""
    return hive_urls()


@pytest.fixture
def console_database(database: str, request: pytest.FixtureRequest) -> str:
    """What `hive` is told of its database: nothing, then it makes a file below its directory, or a new PostgreSQL database."""
    return "" if database == "sqlite" else request.getfixturevalue("new_database")()


@pytest.fixture(scope="session")
def fault_seed() -> int:
    """What a fault suite draws its plan from: the seed that was asked for, else another one in each run; a second look has the same."""
    return int(os.environ.get(FAULT_SEED_VARIABLE) or SystemRandom().randrange(1_000_000))


@pytest.fixture
def fault_seconds() -> float:
    """How long a fault suite looks for trouble, in seconds: short in `make test`, long in `make soak`."""
    return _fault_seconds()


def _fault_seconds() -> float:
    return float(os.environ.get(FAULT_SECONDS_VARIABLE, DEFAULT_FAULT_SECONDS))
