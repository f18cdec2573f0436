"""examples/compose: it can be read, what it starts exists, and its times and numbers fit each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dashboard.cli.app import ORDER
from hive_bus.config import Settings, load_settings
from hive_core_db.admin.server import KEPT
from hive_core_db.url import PostgresUrl, parse
from tests.architecture.tree import ROOT
from tests.support.nats_cluster import SECRETS
from tests.support.nats_server import program

FILE = ROOT / "examples" / "compose" / "compose.yaml"
NATS = FILE.with_name("nats.yaml")


def services_of(file: Path) -> dict[str, Any]:
    """The services of a file."""
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(file.read_text())
    assert {key for key in read if not key.startswith("x-")} == {"name", "services", "volumes"}
    found: dict[str, Any] = read["services"]
    for name, service in found.items():
        assert set(service.get("depends_on", ())) <= set(found), name
        mounted = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        named = {volume for volume in mounted if not volume.startswith("./")}
        assert all((file.parent / volume).is_file() for volume in mounted - named), name
        assert named <= set(read["volumes"]), name
    return found


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of compose.yaml."""
    return services_of(FILE)


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
    assert "/source[postgres,nats,claude]" in words


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
    files = {"compose.yaml", "nats.yaml", "nats.conf", "Dockerfile", "Dockerfile.dockerignore"}
    assert {path.name for path in FILE.parent.iterdir()} == files
    assert Path(FILE.parent / "Dockerfile.dockerignore").read_text().startswith("**/.*\n")


def test_three_nats_servers_and_the_hives_that_use_them(services: dict[str, Any]) -> None:
    """Each hive of compose.yaml is told of all servers, and what it may keep there fits into their disks."""
    more = services_of(NATS)
    servers = [name for name in more if name.startswith("nats-")]
    assert set(more) - set(servers) == {name for name in services if name.startswith("hive")}
    config = NATS.with_name("nats.conf").read_text()
    for name in set(more) - set(servers):
        given = more[name]["environment"]
        settings = load_settings(environment={"HIVE_NATS": given["HIVE_NATS"], "HIVE_DB": "x.db"}).nats
        assert settings is not None
        assert settings.servers == [f"nats://{server}:4222" for server in servers]
        assert settings.replicas == len(servers) == 3
        assert f"user: {settings.user}\n" in config
        assert set(given) == {"HIVE_NATS", "HIVE_NATS_PASSWORD"}
        (room,) = re.findall(r"max_file_store: (\d+)GB", config)
        assert settings.keep_days > 0
        assert 2 * settings.keep_bytes <= int(room) * 10**9
    for server in servers:
        assert f"nats://{server}:6222" in config
        assert more[server]["environment"]["SERVER_NAME"] == server
        # What the configuration asks of the environment is there, and in quotes where it may be a number.
        asked = set(re.findall(r"^\s*\w+: \$(\w+)$", config, re.MULTILINE))
        assert asked == set(more[server]["environment"])
        assert all(value.startswith('"') for name, value in more[server]["environment"].items() if "PASSWORD" in name)


def test_the_real_server_takes_the_configuration() -> None:
    """`nats-server -t` reads it with what nats.yaml gives it."""
    command = services_of(NATS)["nats-1"]["command"]
    words = [str(NATS.with_name("nats.conf")) if word == "/etc/nats/nats.conf" else word for word in command]
    environment = {"SERVER_NAME": "nats-1", **SECRETS}
    done = subprocess.run([program(), "-t", *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr
