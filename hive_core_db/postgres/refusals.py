"""What to do about a server that answers and refuses, by its SQLSTATE. Pure; knows no driver."""

from __future__ import annotations

from typing import Final

from hive_errors.store import StoreRefused

TLS: Final = (
    "give the address the sslmode and the files (sslrootcert, sslcert, sslkey) that the server's TLS asks for; "
    "`hive doctor` says what is spoken"
)
_LOGIN: Final = "check the user and the password (in the address, PGPASSWORD or ~/.pgpass), and that pg_hba.conf on the server lets them in from here"
_RIGHTS: Final = "let the hive's role own the schema of its tables: ALTER SCHEMA ... OWNER TO ..., and the same for tables that are there"
_ADVICE: Final = {
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": "make it on the server (`createdb`), or name the one that is meant in the address",
    "42501": _RIGHTS,
    "42939": "give `schema` in the address a name that does not begin with pg_",
}
_POOLER: Final = "this is a PgBouncer: add pgbouncer=on to the address (transaction mode) or prepared=off (session mode), as docs/many-processes.md says"
_POOLED_SCHEMA: Final = (
    "this is a PgBouncer: take `schema` out of the address, and on the server "
    "ALTER ROLE ... IN DATABASE ... SET search_path = that schema, after CREATE SCHEMA"
)
_ELSE: Final = "run `hive doctor`; the server's own log says more"


def is_setting_refused(reason: str) -> bool:
    """Whether a pooler takes no such setting at the start of a session: it says so under the code of all its troubles."""
    return "unsupported startup parameter" in reason


def refused(url: str, reason: str, sqlstate: str) -> StoreRefused:
    """The error for what the server said, with what to do about it."""
    if is_setting_refused(reason):
        advised = _POOLED_SCHEMA if "search_path" in reason else _POOLER
    else:
        advised = _ADVICE.get(sqlstate, _ELSE)
    return StoreRefused(url=url, reason=reason, advised=advised)
