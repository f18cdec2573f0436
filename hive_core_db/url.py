"""Addresses of databases: which kinds there are, and where a file lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from hive_errors.store import UnsupportedUrl

SUPPORTED = "sqlite:///relative/path.db, sqlite:////absolute/path.db or a plain file path"


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """A SQLite file, by its absolute path."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


def parse(url: str) -> SqliteUrl:
    """Return the file that ``url`` names.

    Raises:
        UnsupportedUrl: It names no file, or a kind of database that is not there.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        rest = url
    elif scheme != "sqlite":
        raise UnsupportedUrl(
            url=_without_password(url), reason=f"there is no backend for {scheme!r}", supported=SUPPORTED
        )
    elif not rest.startswith("/"):
        raise UnsupportedUrl(url=url, reason="a SQLite address has three slashes before its path", supported=SUPPORTED)
    else:
        rest = unquote(rest[1:])
    if not rest or rest == ":memory:" or "\0" in rest:
        raise UnsupportedUrl(
            url=url, reason="it names no file, and a log that only memory holds is none", supported=SUPPORTED
        )
    return SqliteUrl(Path(rest).expanduser().absolute())


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    user = login.partition(":")[0]
    return f"{scheme}://{user}{at}{host}"
