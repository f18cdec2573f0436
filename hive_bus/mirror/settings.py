"""Where the NATS server is and how to be let in: the key ``nats:`` of the settings. Secrets come from the environment or files."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class NatsSettings(BaseModel):
    """The server, the way in, and how much of the log it keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        description="One address or several, with commas between them: `nats://host:4222` or `tls://host:4222`."
    )
    user: str = Field(
        default="", description="A user's name; the password is in `HIVE_NATS_PASSWORD` or `password_file`."
    )
    password_file: Path | None = Field(default=None, description="A file with the password.")
    token_file: Path | None = Field(default=None, description="A file with a token; or it is in `HIVE_NATS_TOKEN`.")
    creds: Path | None = Field(default=None, description="A file with a JWT and its NKey, as `nsc` writes it.")
    nkey: Path | None = Field(default=None, description="A file with the seed of an NKey.")
    tls_ca: Path | None = Field(default=None, description="Certificates to trust in place of the system's.")
    tls_cert: Path | None = Field(default=None, description="This client's certificate.")
    tls_key: Path | None = Field(default=None, description="The key of this client's certificate.")
    replicas: int = Field(default=1, ge=1, le=5, description="On how many servers of a cluster each message is kept.")
    keep_days: float = Field(default=0, ge=0, description="How long the stream keeps messages; 0: always.")
    keep_bytes: int = Field(default=0, ge=0, description="How large the stream may grow; 0: as large as the log.")

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        addresses = [part.strip() for part in value.split(",") if part.strip()]
        if not addresses:
            raise ValueError("it names no server")
        for address in addresses:
            parts = urlsplit(address)
            if parts.scheme not in {"nats", "tls"} or not parts.hostname:
                raise ValueError("an address is nats://host:port or tls://host:port")
            if parts.username or parts.password:
                raise ValueError("a user goes to nats.user, a password to HIVE_NATS_PASSWORD")
        return ",".join(addresses)

    @property
    def servers(self) -> list[str]:
        """The addresses."""
        return self.url.split(",")


FILES: Final = frozenset(("password_file", "token_file", "creds", "nkey", "tls_ca", "tls_cert", "tls_key"))
"""The keys whose values are files."""
