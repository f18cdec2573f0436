"""What tools may touch: denied paths and the variables that a command inherits.

It owns the rules, as values; who opens files or starts commands asks it. It must not open
anything itself. Patterns for paths cannot protect files from a *command*, which runs with
the rights of its user: that takes a sandbox. What a policy does for a command is to keep
secrets out of its environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hive_errors import PathDenied

__all__ = ["DEFAULT_POLICY", "DENIED_PATHS", "INHERITED_VARIABLES", "Policy"]

DENIED_PATHS: Final = (
    ".git",
    ".hive",
    ".env*",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    ".ssh",
    ".aws",
    ".gnupg",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
)
"""Shell patterns; a path is denied when any of its parts matches one, in any case of letters."""

INHERITED_VARIABLES: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "VIRTUAL_ENV",
)
"""Patterns of variables that a command inherits."""

# Whatever the allowed patterns say, these are never inherited: a step that needs one names it in its own `env`.
_SECRET: Final = re.compile(
    r"^(HIVE|ANTHROPIC|CLAUDE)_|TOKEN|SECRET|PASSW|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|_AUTH$|COOKIE|SESSION_?KEY"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a tool call may do.

    Attributes:
        denied: Patterns of path parts that tools neither read, write nor list.
        inherited: Patterns of variables that commands inherit, unless they look like a secret.
        command_timeout: Seconds that a command may take when neither its call nor its step says so; None for no limit.
        command_output_max: Bytes that a command may write before it is ended; None for no limit.
    """

    denied: tuple[str, ...] = DENIED_PATHS
    inherited: tuple[str, ...] = INHERITED_VARIABLES
    command_timeout: float | None = 600.0
    command_output_max: int | None = 8 * 1024**3

    def denial(self, parts: Sequence[str]) -> tuple[str, str] | None:
        """The first denied part of a path in the workspace with the pattern it matches, or None."""
        for part in parts:
            # A file system that ignores case gives `.GIT` the contents of `.git`.
            folded = part.casefold()
            for pattern in self.denied:
                if fnmatchcase(folded, pattern.casefold()):
                    return part, pattern
        return None

    def check(self, parts: Sequence[str]) -> None:
        """Raise :class:`PathDenied` where a part of this path is denied."""
        if found := self.denial(parts):
            raise PathDenied(path="/".join(parts), part=found[0], pattern=found[1])

    def environment(self, inherited: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
        """What a command gets: the allowed part of the variables around it, and those that its step names."""
        return {name: value for name, value in inherited.items() if self.may_inherit(name)} | dict(own)

    def may_inherit(self, variable: str) -> bool:
        """Whether a command may inherit this variable."""
        if _SECRET.search(variable.upper()):
            return False
        return any(fnmatchcase(variable, pattern) for pattern in self.inherited)


DEFAULT_POLICY: Final = Policy()
"""What holds where nobody says otherwise."""
