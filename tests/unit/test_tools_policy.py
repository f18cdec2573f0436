"""The policy: which paths are denied, and what a command's environment holds."""

from __future__ import annotations

import pytest

from agents.policy import DEFAULT_POLICY, Policy
from hive_errors import PathDenied


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "sub/.git/HEAD",
        ".GIT/config",
        ".hive/hive.db",
        ".env",
        ".env.local",
        "deep/down/.ENV",
        "server.pem",
        "tls.KEY",
        "id_rsa",
        "id_ed25519.pub",
        ".ssh/known_hosts",
        ".netrc",
    ],
)
def test_secrets_and_histories_are_denied(path: str) -> None:
    """Any part of a path decides, in any case of letters; the error names the pattern."""
    with pytest.raises(PathDenied) as caught:
        DEFAULT_POLICY.check(path.split("/"))
    assert caught.value.pattern in DEFAULT_POLICY.denied


@pytest.mark.parametrize(
    "path", ["README.md", ".github/workflows/ci.yaml", ".gitignore", "environment.py", "keys.py", "a.env"]
)
def test_ordinary_files_are_not(path: str) -> None:
    """Names that only look a little like them are fine."""
    assert DEFAULT_POLICY.denial(path.split("/")) is None


def test_a_command_inherits_only_what_it_may() -> None:
    """The usual variables pass, keys and the hive's own do not, and a step's own always do."""
    around = {
        "PATH": "/bin",
        "HOME": "/home/x",
        "LC_ALL": "C",
        "VIRTUAL_ENV": "/v",
        "ANTHROPIC_API_KEY": "k",
        "HIVE_DB": "d",
        "GITHUB_TOKEN": "t",
        "EDITOR": "vi",
    }
    found = DEFAULT_POLICY.environment(around, {"MINE": "1", "DEPLOY_TOKEN": "given"})
    assert found == {
        "PATH": "/bin",
        "HOME": "/home/x",
        "LC_ALL": "C",
        "VIRTUAL_ENV": "/v",
        "MINE": "1",
        "DEPLOY_TOKEN": "given",
    }


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_API_KEY",
        "HIVE_DB",
        "CLAUDE_X",
        "AWS_SECRET_ACCESS_KEY",
        "npm_token",
        "DB_PASSWORD",
        "SSH_PRIVATE_KEY",
        "REGISTRY_AUTH",
    ],
)
def test_no_pattern_lets_a_secret_through(name: str) -> None:
    """A policy that allows every variable still keeps what looks like a secret."""
    assert not Policy(inherited=("*",)).may_inherit(name)
    assert Policy(inherited=("*",)).may_inherit("EDITOR")
