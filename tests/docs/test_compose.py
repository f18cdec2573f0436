"""examples/compose: it can be read, what it starts exists, and its times and numbers fit each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dashboard.cli.app import ORDER
from hive_bus.config import Settings
from hive_core_db.admin.server import KEPT
from hive_core_db.url import PostgresUrl, parse
from tests.architecture.tree import ROOT

FILE = ROOT / "examples" / "compose" / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the file."""
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE.read_text())
    assert set(read) <= {"name", "services", "volumes", "x-hive"}
    found: dict[str, Any] = read["services"]
    for name, service in found.items():
        assert set(service.get("depends_on", ())) <= set(found), name
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert named <= set(read["volumes"]), name
    return found


@pytest.fixture
def hives(services: dict[str, Any]) -> list[dict[str, Any]]:
    """The services that are hives."""
    return [service for name, service in services.items() if name.startswith("hive")]


def test_there_are_a_database_and_two_hives(services: dict[str, Any], hives: list[dict[str, Any]]) -> None:
    """Both hives name the database that is started, with its user, its name and its secret."""
    given = services["database"]["environment"]
    assert len(hives) == 2
    for hive in hives:
        address = parse(re.sub(r"\$\{HIVE_PASSWORD[^}]*\}", "secret", hive["environment"]["HIVE_DB"]))
        assert isinstance(address, PostgresUrl)
        assert (address.user, address.database) == (given["POSTGRES_USER"], given["POSTGRES_DB"])
        assert address.host in services
        assert "HIVE_PASSWORD" in hive["environment"]["HIVE_DB"]
        assert "HIVE_PASSWORD" in given["POSTGRES_PASSWORD"]


def test_its_commands_and_settings_exist(hives: list[dict[str, Any]]) -> None:
    """What the hives run, and how they are asked whether they are well."""
    for hive in hives:
        assert hive["command"][0] in ORDER
        assert hive["healthcheck"]["test"][:2] == ["CMD", "hive"]
        assert hive["healthcheck"]["test"][2] in ORDER
        ours = [name.removeprefix("HIVE_").lower() for name in hive["environment"] if name.startswith("HIVE_")]
        assert set(ours) <= set(Settings.model_fields)
    built = {(hive["build"]["context"], hive["build"]["dockerfile"]) for hive in hives}
    ((context, dockerfile),) = built
    assert (FILE.parent / context).resolve() == ROOT
    words = (ROOT / dockerfile).read_text()
    assert 'ENTRYPOINT ["hive"]' in words
    assert "/source[postgres,claude]" in words


def test_nobody_is_killed_while_it_drains(hives: list[dict[str, Any]]) -> None:
    """The supervisor waits longer than a drain may take."""
    for hive in hives:
        patience = float(hive["stop_grace_period"].removesuffix("s"))
        assert patience > float(hive["environment"]["HIVE_DRAIN_SECONDS"]) + 5


def test_the_server_has_room_for_them(services: dict[str, Any], hives: list[dict[str, Any]]) -> None:
    """Connections for every hive, and some to spare for people and backups."""
    command = " ".join(services["database"]["command"])
    most = int(re.findall(r"max_connections=(\d+)", command)[0])
    wanted = PostgresUrl().pool_size + KEPT
    assert most >= len(hives) * wanted + 20


def test_the_files_beside_it_are_there() -> None:
    """What is not copied into the image says so beside its Dockerfile."""
    assert {path.name for path in FILE.parent.iterdir()} == {"compose.yaml", "Dockerfile", "Dockerfile.dockerignore"}
    assert Path(FILE.parent / "Dockerfile.dockerignore").read_text().startswith("**/.*\n")
