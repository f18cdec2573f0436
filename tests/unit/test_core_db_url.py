"""Addresses: what they may say, that they come back whole, and that they never show a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from hive_core_db.url import PARAMETERS, PostgresUrl, SqliteUrl, parse
from hive_errors.store import UnsupportedUrl

FULL = (
    "postgresql://us%40er:p%3Aw@db.example:5433/my%20db?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/me.pem&sslkey=/me.key"
    "&schema=hive&pool_size=7&listen=off&prepared=off"
)


def postgres(url: str) -> PostgresUrl:
    """Parse an address that must be PostgreSQL's."""
    address = parse(url)
    assert isinstance(address, PostgresUrl)
    return address


def test_an_address_says_everything() -> None:
    """Every part of a full address is understood, and nothing is lost when it is opened again."""
    address = postgres(FULL)
    assert address == PostgresUrl(
        user="us@er",
        password="p:w",
        host="db.example",
        port=5433,
        database="my db",
        sslmode="verify-full",
        sslrootcert="/ca.pem",
        sslcert="/me.pem",
        sslkey="/me.key",
        schema="hive",
        pool_size=7,
        listen=False,
        prepared=False,
    )
    assert parse(address.url) == address
    assert address.url == FULL


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///hive",
        "postgresql://me@/hive?host=/run/postgresql",
        "postgresql://me@/hive?host=/run/postgresql&port=5433",
        "postgresql://[::1]:5432/hive",
        "postgresql://me:secret@host/",
    ],
)
def test_short_addresses_come_back_as_they_were(url: str) -> None:
    """What an address leaves out is left to the driver."""
    assert postgres(url).url == url


def test_the_short_scheme_and_an_empty_password_are_fine() -> None:
    """Other programs write addresses like these."""
    assert parse("postgres://me@h/d") == parse("postgresql://me@h/d")
    assert postgres("postgresql://me:@/d?host=/s").password is None


def test_a_pooler_needs_neither_prepared_statements_nor_listen() -> None:
    """``pgbouncer=on`` implies both switches; each can still be set."""
    assert (postgres("postgresql://h/d?pgbouncer=on").prepared, postgres("postgresql://h/d?pgbouncer=on").listen) == (
        False,
        False,
    )
    assert postgres("postgresql://h/d?pgbouncer=on&prepared=on").prepared
    assert (postgres("postgresql://h/d").prepared, postgres("postgresql://h/d").listen) == (True, True)


@pytest.mark.parametrize("url", [FULL, "postgres://me:secret@host/hive"])
def test_no_text_shows_a_password(url: str) -> None:
    """Neither ``str()`` nor ``repr()``; the user stays."""
    address = postgres(url)
    assert address.password is not None
    for text in (str(address), repr(address), f"{address}"):
        assert address.password not in text
        assert "p%3Aw" not in text
    assert ":***@" in str(address)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("color=red", "'color'"),
        ("sslmode=maybe", "sslmode is 'maybe'"),
        ("schema=Hive", "schema is 'Hive'"),
        ("schema=" + "x" * 57, "56"),
        ("pool_size=0", "pool_size is '0'"),
        ("pool_size=many", "pool_size is 'many'"),
        ("listen=yes", "listen is 'yes'"),
        ("port=99999", "port is '99999'"),
        ("schema=", "is empty"),
        ("schema=a&schema=b", "twice"),
        ("schema", "name=value"),
    ],
)
def test_what_no_address_can_say_is_refused(query: str, word: str) -> None:
    """The error names parameter, value and reason, the hint what there is, and neither the password."""
    with pytest.raises(UnsupportedUrl, match=word) as caught:
        parse(f"postgresql://me:secret@host/hive?{query}")
    assert "secret" not in str(caught.value)
    assert "postgresql://" in caught.value.advice


def test_an_unknown_parameter_is_told_all_that_there_are() -> None:
    """Whoever mistyped one sees the right one."""
    with pytest.raises(UnsupportedUrl) as caught:
        parse("postgresql://host/hive?pool-size=3")
    assert all(name in str(caught.value) for name in PARAMETERS)


@pytest.mark.parametrize("host", ["a,b", "[::1", "h:port"])
def test_hosts_that_are_none_are_refused(host: str) -> None:
    """Several hosts, an open bracket, a port that is no number."""
    with pytest.raises(UnsupportedUrl):
        parse(f"postgresql://{host}/hive")


def test_files_come_back_whole_too() -> None:
    """A path with characters that an address escapes is the same file when it is opened again."""
    address = parse("/x/a b%20?#.db")
    assert address == SqliteUrl(Path("/x/a b%20?#.db"))
    assert isinstance(address, SqliteUrl)
    assert parse(address.url) == address
