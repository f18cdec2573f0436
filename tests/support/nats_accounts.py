"""Operators, accounts and users of NATS as `nsc` makes them: keys, tokens that one signs for another, and a file of credentials."""

from __future__ import annotations

import json
import os
from base64 import b32encode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import nkeys  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key pair, known by its public half."""

    seed: bytes

    @classmethod
    def new(cls, kind: str) -> Self:
        """A new one: of an OPERATOR, an ACCOUNT or a USER."""
        return cls(nkeys.encode_seed(os.urandom(32), getattr(nkeys, f"PREFIX_BYTE_{kind}")))

    @property
    def public(self) -> str:
        """The public key."""
        key: bytes = nkeys.from_seed(bytearray(self.seed)).public_key
        return key.decode()

    def signs(self, other: Signer, kind: str, **claims: Any) -> str:
        """A token that says what another one is."""
        body = {"iat": 1, "iss": self.public, "name": kind, "sub": other.public}
        body["nats"] = {**claims, "type": kind, "version": 2}
        body["jti"] = b32encode(sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        text = ".".join(_plain(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{text}.{_plain(nkeys.from_seed(bytearray(self.seed)).sign(text.encode()))}"

    def credentials(self, file: Path) -> None:
        """Write the credentials of a new user of this account."""
        user = Signer.new("USER")
        token = self.signs(user, "user", subs=-1, data=-1, payload=-1)
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )


def _plain(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
