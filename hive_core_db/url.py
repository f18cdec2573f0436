"""Addresses of databases: which kinds there are, what an address may say, and how it is shown.

``str()`` of an address never shows a password; ``url`` is the whole address, to open it again.
Knows neither drivers nor tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlencode

from hive_errors.store import UnsupportedUrl

SUPPORTED: Final = (
    "sqlite:///relative/path.db, sqlite:////absolute/path.db, a plain file path, "
    "postgresql://user:password@host:5432/database or postgresql:///database?host=/socket/directory"
)
PARAMETERS: Final = (
    "host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "schema", "pool_size", "listen", "prepared", "pgbouncer",
)  # fmt: skip
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
POOL_SIZE: Final = 4
MOST_CONNECTIONS: Final = 100
_SCHEMES: Final = ("postgresql", "postgres")
# The name of a schema is also part of a channel's name, and PostgreSQL cuts names at 63 bytes.
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,55}")
_SWITCHES: Final = {"on": True, "off": False}
_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """A SQLite file, by its absolute path."""

    path: Path

    @property
    def url(self) -> str:
        """The whole address, to open it again."""
        return f"sqlite:///{quote(str(self.path))}"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresUrl:
    """A PostgreSQL database, and how to talk to it; None means the driver's default (``PGHOST``, ``PGUSER``, ``~/.pgpass``, ...).

    ``host`` is a name, an address, or the directory of a unix socket. ``schema`` is where the hive's tables are
    (None: the server's default). ``pool_size`` bounds the connections beside the four that the hive keeps for appends,
    wake-ups and listening. ``listen`` off: only polling. ``prepared`` off: no prepared statements,
    for PgBouncer in transaction mode.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str | None = None
    sslmode: str | None = None
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    schema: str | None = None
    pool_size: int = POOL_SIZE
    listen: bool = True
    prepared: bool = True

    @property
    def url(self) -> str:
        """The whole address with its password, to open it again; not to be shown."""
        return self._text(None if self.password is None else quote(self.password, safe=""))

    @property
    def tls(self) -> dict[str, str]:
        """What the address says of TLS, by the names that the driver knows."""
        return {name: value for name in _TLS if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return self._text(None if self.password is None else "***")

    def _text(self, password: str | None) -> str:
        login = "" if self.user is None else quote(self.user, safe="")
        if password is not None:
            login += f":{password}"
        is_socket = self.host is not None and self.host.startswith("/")
        host = "" if self.host is None or is_socket else self.host
        if ":" in host:
            host = f"[{host}]"
        port = "" if self.port is None or is_socket else f":{self.port}"
        said: dict[str, str] = {}
        if is_socket and self.host is not None:
            said["host"] = self.host
            if self.port is not None:
                said["port"] = str(self.port)
        said |= self.tls
        if self.schema is not None:
            said["schema"] = self.schema
        if self.pool_size != POOL_SIZE:
            said["pool_size"] = str(self.pool_size)
        said |= {name: "off" for name in ("listen", "prepared") if not getattr(self, name)}
        query = f"?{urlencode(said, safe='/')}" if said else ""
        at = "@" if login else ""
        return f"postgresql://{login}{at}{host}{port}/{quote(self.database or '', safe='')}{query}"


def parse(url: str) -> SqliteUrl | PostgresUrl:
    """Return what ``url`` names: a SQLite file or a PostgreSQL database.

    Raises:
        UnsupportedUrl: It names neither, or says something that no address can say.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _file(url, url)
    if scheme == "sqlite":
        if not rest.startswith("/"):
            _refuse(url, "a SQLite address has three slashes before its path")
        return _file(url, unquote(rest[1:]))
    if scheme not in _SCHEMES:
        _refuse(url, f"there is no backend for {scheme!r}")
    return _server(url, rest)


def _file(url: str, path: str) -> SqliteUrl:
    if not path or path == ":memory:" or "\0" in path:
        _refuse(url, "it names no file, and a log that only memory holds is none")
    return SqliteUrl(Path(path).expanduser().absolute())


def _server(url: str, rest: str) -> PostgresUrl:
    place, _, query = rest.partition("?")
    place, _, database = place.partition("/")
    login, _, host = place.rpartition("@")
    user, _, password = login.partition(":")
    host, port = _host(url, host)
    said = _said(url, query)
    socket = said.get("host")
    through_pool = _switch(url, said, "pgbouncer", default=False)
    sslmode = said.get("sslmode")
    if sslmode is not None and sslmode not in SSL_MODES:
        _refuse(url, f"sslmode is {sslmode!r}, not one of {', '.join(SSL_MODES)}")
    schema = said.get("schema")
    if schema is not None and not _SCHEMA.fullmatch(schema):
        _refuse(url, f"schema is {schema!r}; it has up to 56 lower case letters, digits and underscores")
    return PostgresUrl(
        user=unquote(user) or None,
        password=unquote(password) or None,
        host=socket or host or None,
        port=_number(url, "port", said.get("port", port), 65535),
        database=unquote(database) or None,
        sslmode=sslmode,
        sslrootcert=said.get("sslrootcert"),
        sslcert=said.get("sslcert"),
        sslkey=said.get("sslkey"),
        schema=schema,
        pool_size=_number(url, "pool_size", said.get("pool_size"), MOST_CONNECTIONS) or POOL_SIZE,
        listen=_switch(url, said, "listen", default=not through_pool),
        prepared=_switch(url, said, "prepared", default=not through_pool),
    )


def _host(url: str, text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, closing, port = text[1:].partition("]")
        if not closing or (port and not port.startswith(":")):
            _refuse(url, f"its host {text!r} is no address")
        return host, port[1:] or None
    if "," in text:
        _refuse(url, "it names several hosts; name one, or a proxy before them")
    host, _, port = text.partition(":")
    return unquote(host), port or None


def _said(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        _refuse(url, "what follows the question mark is not name=value&name=value")
    said = dict(pairs)
    unknown = sorted(said.keys() - set(PARAMETERS))
    if unknown:
        _refuse(url, f"it has no parameter {unknown[0]!r}; there are {', '.join(PARAMETERS)}")
    twice = len(pairs) != len(said)
    empty = [name for name, value in pairs if not value]
    if twice or empty:
        _refuse(url, f"parameter {empty[0]!r} is empty" if empty else "a parameter is given twice")
    return said


def _number(url: str, name: str, value: str | None, most: int) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= most):
        _refuse(url, f"{name} is {value!r}, not a number from 1 to {most}")
    return int(value)


def _switch(url: str, said: dict[str, str], name: str, *, default: bool) -> bool:
    value = said.get(name)
    if value is None:
        return default
    if value not in _SWITCHES:
        _refuse(url, f"{name} is {value!r}, not on or off")
    return _SWITCHES[value]


def _refuse(url: str, reason: str) -> NoReturn:
    raise UnsupportedUrl(url=_without_password(url), reason=reason, supported=SUPPORTED)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}{host}"
