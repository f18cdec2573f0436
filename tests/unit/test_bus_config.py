"""Settings: flags over environment over the nearest file over defaults, each wrong value named with its place."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_bus import Settings, load_settings, tune_process
from hive_bus.config import default_url, settings_page
from hive_core_db.url import SqliteUrl, parse
from hive_errors import SettingInvalid

ROOT = Path(__file__).parents[2]


def test_the_default_is_beside_the_program(tmp_path: Path) -> None:
    """Nothing set: `.hive/hive.db` under the working directory, info lines as text."""
    settings = load_settings(environment={}, directory=tmp_path)
    assert settings == Settings(db=f"sqlite:///{tmp_path}/.hive/hive.db", log_level="INFO", log_json=False)


def test_the_nearest_file_upwards_counts(tmp_path: Path) -> None:
    """A file in between hides the one above; a relative path in it means one beside it."""
    (tmp_path / "hive.yaml").write_text("db: above.db\nlog_level: ERROR\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load_settings(environment={}, directory=inner).db == f"sqlite:///{tmp_path}/above.db"
    (tmp_path / "a" / "hive.yaml").write_text("db: sqlite:///near/x.db\nunknown_to_the_bus: 1\n")
    settings = load_settings(environment={}, directory=inner)
    assert (settings.db, settings.log_level) == (f"sqlite:///{tmp_path}/a/near/x.db", "INFO")


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    """A flag that was not given is no flag; an empty variable is none either."""
    (tmp_path / "hive.yaml").write_text("db: /file.db\nlog_level: ERROR\nlog_json: true\n")
    environment = {"HIVE_DB": "sqlite:////environment.db", "HIVE_LOG_LEVEL": "DEBUG", "HIVE_LOG_JSON": ""}
    settings = load_settings({"log_level": "WARNING", "db": None}, environment=environment, directory=tmp_path)
    assert settings == Settings(db="sqlite:////environment.db", log_level="WARNING", log_json=True)


@pytest.mark.parametrize(
    ("text", "environment", "key", "origin"),
    [
        ("log_level: LOUD", {}, "log_level", "hive.yaml"),
        ("", {"HIVE_LOG_JSON": "perhaps"}, "log_json", "the environment"),
        ("- a\n- b\n", {}, "(file)", "hive.yaml"),
        ("db: [", {}, "(file)", "hive.yaml"),
        ("db: 7", {}, "db", "hive.yaml"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    tmp_path: Path, text: str, environment: dict[str, str], key: str, origin: str
) -> None:
    """Key, value, where it came from, and why it cannot be."""
    (tmp_path / "hive.yaml").write_text(text)
    with pytest.raises(SettingInvalid) as problem:
        load_settings(environment=environment, directory=tmp_path)
    assert problem.value.key == key
    assert origin in problem.value.origin
    assert problem.value.reason


def test_a_path_of_any_letters_is_an_address(tmp_path: Path) -> None:
    """A directory named with a percent sign or a space is found again."""
    odd = tmp_path / "50% of it all"
    odd.mkdir()
    assert parse(load_settings(environment={}, directory=odd).db) == SqliteUrl(odd / ".hive" / "hive.db")
    (odd / "hive.yaml").write_text("db: x y.db\n")
    assert parse(load_settings(environment={}, directory=odd).db) == SqliteUrl(odd / "x y.db")


def test_the_default_address_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HIVE_DB as it is, else the working directory's."""
    monkeypatch.chdir(tmp_path)
    assert default_url() == f"sqlite:///{tmp_path}/.hive/hive.db"
    monkeypatch.setenv("HIVE_DB", "somewhere.db")
    assert default_url() == "somewhere.db"


def test_a_nats_server_is_an_address_or_keys(tmp_path: Path) -> None:
    """An address alone, keys in a file beside which their files are, JSON in the environment; nothing means no mirror."""
    assert load_settings(environment={}, directory=tmp_path).nats is None
    by_address = load_settings(environment={"HIVE_NATS": "nats://a:1,nats://b:2"}, directory=tmp_path).nats
    assert by_address is not None
    assert by_address.servers == ["nats://a:1", "nats://b:2"]
    (tmp_path / "hive.yaml").write_text("nats: {url: 'tls://a:1', creds: hive.creds, replicas: 3}\n")
    by_keys = load_settings(environment={}, directory=tmp_path).nats
    assert by_keys is not None
    assert (by_keys.creds, by_keys.replicas) == (tmp_path / "hive.creds", 3)
    by_json = load_settings(environment={"HIVE_NATS": '{"url": "nats://c:3"}'}, directory=tmp_path).nats
    assert by_json is not None
    assert (by_json.url, by_json.creds) == ("nats://c:3", None)


@pytest.mark.parametrize("value", ["nats://u:secret@a:1", "http://a", " , ", "{", '{"url": "nats://a", "odd": 1}'])
def test_a_password_is_never_a_part_of_an_address(tmp_path: Path, value: str) -> None:
    """It is refused, as any other wrong value, and not shown."""
    with pytest.raises(SettingInvalid) as problem:
        load_settings(environment={"HIVE_NATS": value}, directory=tmp_path)
    assert problem.value.key.startswith("nats")
    assert "secret" not in str(problem.value)


def test_the_page_of_settings_is_up_to_date() -> None:
    """docs/settings.md is what `python -m hive_bus.config` prints."""
    printed = subprocess.run(
        [sys.executable, "-m", "hive_bus.config"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == settings_page()
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page()


@pytest.fixture
def _as_before() -> Iterator[None]:
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.usefixtures("_as_before")
def test_tuning_is_a_call() -> None:
    """It is for the whole process, and no import does it."""
    tune_process()
    assert sys.getswitchinterval() == pytest.approx(0.0002)
    assert gc.get_threshold()[0] == 50_000
    assert gc.get_freeze_count() > 0


def test_what_a_setting_of_ours_refuses_is_said_in_our_words_alone() -> None:
    """The reason is the check's own sentence, without the library's label before it."""
    with pytest.raises(SettingInvalid) as problem:
        load_settings({"nats": "http://nats.example.org"})
    assert problem.value.reason == "an address is nats://host:port or tls://host:port"
