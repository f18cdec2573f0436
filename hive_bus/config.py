"""Settings: flags over environment over ``hive.yaml`` over defaults; and the tuning of a process.

The one table of keys is ``Settings``; docs/settings.md is printed from it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hive_bus.budget import HiveBudget
from hive_bus.limit import Limit
from hive_bus.mirror.embedded import FOLDER as EMBEDDED
from hive_bus.mirror.embedded import running
from hive_bus.mirror.settings import FILES, NatsSettings
from hive_errors import SettingInvalid

PREFIX: Final = "HIVE_"
FILE: Final = "hive.yaml"
DEFAULT_DATABASE: Final = ".hive/hive.db"

_LIMITS: Final = """
## Limits

```yaml
limits:
  model:anthropic: {concurrency: 8, requests_per_minute: 50, tokens_per_minute: 40000}
  task:run: {concurrency: 4}
  tool:github: {requests_per_minute: 30}
```

A limit holds for all processes that share the database, if they all have it in their settings. An effect counts for every key
that it has, and begins when all of them allow it:

| key | whose |
|---|---|
| `task:run`, `task:tool`, `task:<capability>`, `model`, `tool`, or the label of an intent of yours | all of that queue |
| `model:<provider>`, `model:<provider>:<name>` | calls of a provider's models, or of one model |
| `tool:<name>`, `tool:<first part of the name>` | calls of a tool, or of all tools with names such as `github.search` or `mcp__github__search` |

Rates are buckets that hold ten seconds' worth. Tokens are estimated before a call and corrected by what it really used. When a
provider refuses a call for the moment (`Retry-After`), the most particular of its keys that is named here rests for everybody, also
one without numbers (`model:anthropic: {}`). What waits for a limit uses nothing, and does not keep others from overtaking it.
"""

_BUDGET: Final = """
## Budget

```yaml
budget: {usd: 20, per: day}
```

A budget holds for all processes that share the database, if they all have it in their settings. What a call may use at most is set aside
before it is made. When that is more than what is left, the run that wants to make it pauses and says so; it goes on in the next period, or
when `hive budget --add usd=5` raises this one. A run may have a budget of its own besides ([usage and budgets](usage.md)).
"""

_NATS: Final = """
## NATS

```yaml
nats: {url: "tls://nats.example.org:4222", creds: hive.creds, replicas: 3}
```

`HIVE_NATS` takes the place of the whole key. Files are relative to `hive.yaml`. A password or a token comes from `HIVE_NATS_PASSWORD`
or `HIVE_NATS_TOKEN`, or from a file, and never stands in an address. Where nothing is set, the server that `hive up --nats embedded` runs in
the same directory for the same database is used. `docs/nats.md` says what is on the server.
"""


class Settings(BaseModel):
    """What can be set, for a process. Each key is ``HIVE_<KEY>`` in the environment and ``<key>:`` in ``hive.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str = Field(
        default="",
        description="The database's address: `sqlite:///path` or a path. In `hive.yaml` relative to that file.",
        json_schema_extra={
            "unit": "address",
            "default": f"`./{DEFAULT_DATABASE}`",
            "why": "to share one log between projects or processes",
        },
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="The least important lines of the hive's own log that are written.",
        json_schema_extra={"unit": "level", "why": "DEBUG to follow a single message, WARNING for silence"},
    )
    log_json: bool = Field(
        default=False,
        description="Log lines as JSON objects instead of text.",
        json_schema_extra={"unit": "true or false", "why": "when a program reads the log"},
    )
    limits: dict[str, Limit] = Field(
        default_factory=dict,
        description="How much may run at a time and per minute, by key, for all processes together. See below.",
        json_schema_extra={
            "unit": "keys and their limits (in the environment: JSON)",
            "default": "none",
            "why": "to stay within what a provider or a machine allows",
        },
    )
    budget: HiveBudget | None = Field(
        default=None,
        description="How much all runs together may use in a period: money, tokens, calls, time. See below.",
        json_schema_extra={
            "unit": "kinds and amounts (in the environment: JSON)",
            "default": "none",
            "why": "to be sure of what it can cost at most",
        },
    )
    nats: NatsSettings | None = Field(
        default=None,
        description="The NATS server that `hive up` mirrors the log to, and that processes take its live tail from: its address, or keys. See below.",
        json_schema_extra={
            "unit": "address, or keys (in the environment: JSON)",
            "default": "none",
            "why": "to let programs in any language follow the log, and many processes without asking the database",
        },
    )
    health_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How often a process looks at its own parts: database, loop, groups, hands, and agents' own checks.",
        json_schema_extra={"unit": "seconds", "why": "shorter to hear of trouble sooner; each look is a few questions"},
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        description="How long a process that was told to stop (SIGTERM) may finish what it has; the rest is given back.",
        json_schema_extra={"unit": "seconds", "why": "below what your supervisor waits before it kills"},
    )

    @field_validator("nats", mode="before")
    @classmethod
    def _nats_of_text(cls, value: object) -> object:
        """A plain address stands for a server without any further keys."""
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("{"):
            return {"url": value}
        try:
            return json.loads(value)
        except ValueError as problem:
            raise ValueError(f"it is no JSON: {problem}") from problem

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_of_text(cls, value: object) -> object:
        """The environment holds text."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as problem:
            raise ValueError(f"it is no JSON: {problem}") from problem

    @field_validator("limits", mode="before")
    @classmethod
    def _limits_of_text(cls, value: object) -> object:
        """The environment holds text, and a file may name a key without saying anything of it."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as problem:
                raise ValueError(f"it is no JSON: {problem}") from problem
        return {key: limit or {} for key, limit in value.items()} if isinstance(value, dict) else value


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings of this process: ``flags`` that are not None, then the environment, then the nearest file upwards.

    Raises :class:`SettingInvalid`, which names the key and where its value came from. Keys of
    ``hive.yaml`` that are not in the table belong to other floors and are left alone.
    """
    environment = os.environ if environment is None else environment
    directory = Path.cwd() if directory is None else directory
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = nearest_file(directory)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (str(file), _from_file(file)),
        ("the environment", _from_environment(environment)),
        ("a flag", {key: value for key, value in (flags or {}).items() if value is not None}),
    ]
    for origin, layer in layers:
        for key, value in layer.items():
            values[key], origins[key] = value, origin
    if not values.get("db"):
        values["db"] = _address(directory / DEFAULT_DATABASE)
    if "nats" not in values and (directory / EMBEDDED).exists() and (server := running(directory, values["db"])):
        values["nats"], origins["nats"] = server, str(directory / EMBEDDED)
    try:
        return Settings(**values)
    except ValidationError as problem:
        first = problem.errors()[0]
        key, path = str(first["loc"][0]), ".".join(str(part) for part in first["loc"])
        # Somebody may have put a password into the address.
        shown = "(not shown)" if key == "nats" else ascii(first["input"])[:80]
        raise SettingInvalid(
            key=path,
            value=shown,
            origin=origins.get(key, "the default"),
            reason=first["msg"].removeprefix("Value error, "),
        ) from problem


def default_url() -> str:
    """The database's address: ``HIVE_DB``, else ``db:`` of the nearest ``hive.yaml`` upwards, else ``./.hive/hive.db``."""
    return os.environ.get(f"{PREFIX}DB") or load_settings().db


def nats_settings(given: NatsSettings | str | None, *, beside_address: bool) -> NatsSettings | None:
    """The NATS server that ``given`` means: settings, an address, "" for none; else ``HIVE_NATS``.

    Else ``nats:`` of the nearest ``hive.yaml``, but only ``beside_address``: where the database's address comes from there too.
    """
    if given is None:
        return load_settings().nats if beside_address or os.environ.get(f"{PREFIX}NATS") else None
    if isinstance(given, str):
        return load_settings({"nats": given}).nats if given else None
    return given


def nearest_file(directory: Path) -> Path | None:
    """The nearest ``hive.yaml`` from ``directory`` upwards."""
    for folder in (directory, *directory.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def settings_page() -> str:
    """docs/settings.md: the table of keys."""
    lines = [
        "# Settings",
        "",
        "A flag wins over the environment, the environment over the nearest `hive.yaml` upwards, that over the default.",
        "Secrets are no settings: they come from the environment only. This page is printed from the settings model:",
        "`python -m hive_bus.config > docs/settings.md`.",
        "",
        "| key in `hive.yaml` | environment | value | default | what it is | set it |",
        "|---|---|---|---|---|---|",
    ]
    for key, field in Settings.model_fields.items():
        facts = field.json_schema_extra
        assert isinstance(facts, dict)
        shown = facts.get("default", f"`{str(field.default).lower() if field.annotation is bool else field.default}`")
        variable = f"{PREFIX}{key.upper()}"
        lines.append(f"| `{key}` | `{variable}` | {facts['unit']} | {shown} | {field.description} | {facts['why']} |")
    lines += ["", _LIMITS.strip(), "", "| under a key | what it limits |", "|---|---|"]
    lines += [f"| `{name}` | {field.description} |" for name, field in Limit.model_fields.items()]
    lines += ["", _BUDGET.strip(), "", "| under `budget` | what it limits |", "|---|---|"]
    lines += [f"| `{name}` | {field.description} |" for name, field in HiveBudget.model_fields.items()]
    lines += ["", _NATS.strip(), "", "| under `nats` | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {field.description} |" for name, field in NatsSettings.model_fields.items()]
    return "\n".join(lines) + "\n"


def tune_process() -> None:
    """Tune this process for throughput; a program's decision, never an import's.

    Threads change every 0.2 ms instead of every 5 (the writer's thread must not wait for the
    loop), and the garbage collector looks at what is new every 50,000 objects and no more at
    what was there before.
    """
    sys.setswitchinterval(0.0002)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, *gc.get_threshold()[1:])


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    named = {key: environment.get(f"{PREFIX}{key.upper()}", "") for key in Settings.model_fields}
    return {key: value for key, value in named.items() if value}


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    # Loaded only where there is such a file: the parser is slow to import.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (YAMLError, OSError, UnicodeDecodeError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise SettingInvalid(key="(file)", value=FILE, origin=str(file), reason=reason) from problem
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingInvalid(
            key="(file)", value=ascii(content)[:80], origin=str(file), reason="it must hold keys and values"
        )
    known = {key: content[key] for key in Settings.model_fields if content.get(key) is not None}
    if isinstance(known.get("db"), str):
        known["db"] = _relative_to(file.parent, known["db"])
    if isinstance(nats := known.get("nats"), dict):
        known["nats"] = {
            key: str(file.parent / Path(value).expanduser()) if key in FILES and isinstance(value, str) else value
            for key, value in nats.items()
        }
    return known


def _relative_to(folder: Path, db: str) -> str:
    """A relative path in a file means one beside that file, wherever the program was started."""
    path = db.removeprefix("sqlite:///")
    if "://" in path or Path(path).is_absolute() or path.startswith("~"):
        return db
    return f"sqlite:///{quote(str(folder))}/{path}" if path != db else _address(folder / path)


def _address(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
