"""The driver, seen through the few calls that the hive uses: the one place that imports asyncpg.

Owns how a connection is opened and what its errors mean. Knows no tables.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

from hive_core_db.postgres.refusals import TLS, is_setting_refused, refused
from hive_core_db.url import PostgresUrl
from hive_errors.store import (
    DriverMissing,
    LogCorrupt,
    StatementEnded,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    StoreUnreachable,
    ValueRefused,
)

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]
else:
    try:
        import asyncpg
    except ModuleNotFoundError:
        asyncpg = None

CONNECT_SECONDS: Final = 10.0
# As long as SQLite's busy timeout: nothing of ours runs for a minute, so the server is stuck, or somebody holds a lock.
COMMAND_SECONDS: Final = 60.0
# How long a statement may take is `command_timeout`: a limit that suits a server's other users would end an upgrade or an audit half-way.
_NO_LIMITS: Final = {"statement_timeout": "0", "lock_timeout": "0"}
# A pooler refuses such settings; through one each statement is planned anew, with its values.
STEADY_PLANS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
# For what may take as long as there are rows.
NO_HURRY: Final = 24 * 3600.0
# Through a pooler every statement needs a transaction of its own, so that its steps meet the same server process. A client that is
# stopped between them must not hold locks for ever: the server ends a transaction that waits for its client so long (milliseconds).
_BEGIN_ALONE: Final = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000"

# A server that is not there now and will be: shutting down, starting, out of connections or memory, a standby, a deadlock, a cut session.
_COMES_BACK: Final = frozenset(
    {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53000", "53200", "53300", "53400", "25006", "40001", "40P01"}
)  # fmt: skip
_FULL: Final = frozenset({"53100"})
_CORRUPT: Final = frozenset({"XX001", "XX002"})
_ENDED: Final = frozenset({"55P03", "57014"})


class Row(Protocol):
    """A row of an answer: by index or by name."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def keys(self) -> Iterable[str]: ...


class Connection(Protocol):
    """A session with the server. One statement at a time; a cancelled call cancels its statement on the server."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Row | None: ...
    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any: ...
    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...
    async def executemany(
        self, command: str, args: Iterable[Sequence[object]], *, timeout: float | None = None
    ) -> None: ...
    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None: ...
    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...
    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[None]: ...
    def is_in_transaction(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def get_server_pid(self) -> int: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


async def connect(
    url: PostgresUrl, *, command_timeout: float = COMMAND_SECONDS, steady_plans: bool = False
) -> Connection:
    """Open one session.

    Args:
        url: Where.
        command_timeout: Seconds after which a statement is given up.
        steady_plans: Plan every statement once, for the index that it was written for: how long it takes does not change with
            what the statistics say today. For many short statements; not for those that read whole tables.

    Raises:
        DriverMissing: asyncpg is not installed.
        StoreUnreachable: The server does not answer now.
        StoreUnavailable: It refuses this user, this database or these TLS settings.
    """
    if asyncpg is None:
        raise DriverMissing(url=str(url), package="asyncpg", extra="hive-orchestrator[postgres]")
    _check_files(url)
    # Nothing later may depend on the session, so what a session must know is said when it begins.
    settings = {"application_name": "hive"}
    if url.schema is not None:
        settings["search_path"] = url.schema
    if url.prepared:
        settings |= _NO_LIMITS
    if steady_plans and url.prepared:
        settings |= STEADY_PLANS
    try:
        opened: Connection = await asyncpg.connect(
            f"postgresql://?{urlencode(url.tls)}" if url.tls else None,
            host=url.host,
            port=url.port,
            user=url.user,
            password=url.password,
            database=url.database,
            timeout=CONNECT_SECONDS,
            command_timeout=command_timeout,
            statement_cache_size=200 if url.prepared else 0,
            # A plan lives as long as its session; the driver's own limit would have each made again every five minutes.
            max_cached_statement_lifetime=0,
            connection_class=asyncpg.Connection if url.prepared else _alone_class(),
            server_settings=settings,
        )
    except TimeoutError as error:
        raise StoreUnreachable(url=str(url), reason=f"no answer within {CONNECT_SECONDS:.0f} s") from error
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise translate(error, url) from error
    return opened


def _check_files(url: PostgresUrl) -> None:
    # The driver's word for a certificate that is not there is the same as for a server that is not.
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if (file := url.tls.get(name)) is not None and not Path(file).is_file():
            raise StoreUnavailable(url=str(url), reason=f"{name} is {file}, which is no file")


def _alone_class() -> Any:
    class Alone(asyncpg.Connection):  # type: ignore[misc]
        """A session behind a pooler: every statement in a transaction of its own, unless the caller opened one."""

        async def _execute(self, *args: Any, **options: Any) -> Any:
            return await self._within(super()._execute, args, options)

        async def _executemany(self, *args: Any, **options: Any) -> Any:
            return await self._within(super()._executemany, args, options)

        async def _within(self, call: Callable[..., Any], args: Any, options: Any) -> Any:
            if self.is_in_transaction():
                return await call(*args, **options)
            await self.execute(_BEGIN_ALONE)
            try:
                value = await call(*args, **options)
                await self.execute("COMMIT")
            except BaseException:
                if self.is_in_transaction() and not self.is_closed():
                    await self.execute("ROLLBACK")
                raise
            return value

    return Alone


def failures() -> tuple[type[Exception], ...]:
    """What the driver may raise, for `translate`."""
    return (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_unsent(error: BaseException | None) -> bool:
    """Whether the driver sent nothing of a statement, for the session had ended before.

    A server that ends an idle session says why, then closes it. In the moment between the two the connection does not count as
    closed yet, and the driver, whom nobody had asked anything, takes the word for a fault of its own.
    """
    if isinstance(error, asyncpg.InterfaceError):
        return "is closed" in str(error)
    return lost_track(error) and str(error).startswith(("cannot switch to state", "not connected"))


def lost_track(error: BaseException | None) -> bool:
    """Whether the driver no longer knows where its conversation with the server stands: the connection is of no more use."""
    return isinstance(error, asyncpg.InternalClientError)


def translate(error: Exception, url: PostgresUrl, *, waited: float = COMMAND_SECONDS) -> StoreError:
    """Say in the hive's words what the driver reported."""
    if isinstance(error, StoreError):
        return error
    address = str(url)
    reason = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        return StoreBusy(url=address, waited=waited)
    if isinstance(error, ssl.SSLError):
        # A certificate that does not fit now will not fit later.
        return StoreRefused(url=address, reason=f"TLS: {reason}", advised=TLS)
    if isinstance(error, OSError):
        if "rejected SSL upgrade" in reason:
            return StoreRefused(url=address, reason=f"TLS: {reason}", advised=TLS)
        return StoreUnreachable(url=address, reason=reason)
    if isinstance(error, asyncpg.DataError) and isinstance(error, ValueError):
        return ValueRefused(reason=reason)
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, address, reason)
    if is_unsent(error) or (isinstance(error, asyncpg.InterfaceError) and "closed" in reason):
        return StoreUnreachable(url=address, reason=f"the session had ended: {reason}")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreRefused(url=address, reason=reason.partition("\n")[0], advised=TLS)
    return StoreUnavailable(url=address, reason=reason)


def _of_server(error: Any, address: str, reason: str) -> StoreError:
    code: str = error.sqlstate or ""
    if is_setting_refused(reason):
        return refused(address, reason, code)
    if code.startswith("08") or code in _COMES_BACK:
        return StoreUnreachable(url=address, reason=reason)
    if code in _ENDED:
        return StatementEnded(url=address, waited=0.0, reason=reason)
    if code in _FULL:
        return StoreFull(url=address, reason=reason)
    if code in _CORRUPT:
        return LogCorrupt(position=0, reason=reason)
    if code.startswith(("22", "23")):
        return ValueRefused(reason=reason)
    return refused(address, reason, code)
