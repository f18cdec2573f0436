"""git, isolated: no hooks, no signing, no prompts, nobody else's configuration.

It owns how git is called and what its failures mean. It must not know runs, tasks or worktrees.

What still holds is the repository's own ``.git/config``: it is as trusted as the repository. A filter or
merge driver that it defines does run; one that only the user's or the system's configuration defines (as
git-lfs does by default) does not, so such files stay pointers here. Of the user's own configuration two answers
are asked for, and nothing else: which files are ignored everywhere (or they would look like changes, and be
committed), and whether a repository that belongs to somebody else is trusted (``safe.directory``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from agents.process import run_command
from hive_errors import GitFailed

__all__ = ["LOCK_PATIENCE", "Git", "GitResult"]

LOCK_PATIENCE: Final = 3.0
"""Seconds to wait for another git that holds a lock file."""

_OUTPUT_LIMIT: Final = 64 * 1024 * 1024
_TIMEOUT: Final = 600.0
_SETTINGS: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.quotePath=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "merge.conflictStyle=merge",
    "merge.autoStash=false",
    "merge.verifySignatures=false",
    "rerere.enabled=false",
    "submodule.recurse=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "color.ui=false",
    "advice.addEmbeddedRepo=false",
)
_PREFIX: Final = tuple(word for setting in _SETTINGS for word in ("-c", setting))
_USERS_OWN: Final = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
_WHO: Final = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (("NAME", "hive"), ("EMAIL", "hive@localhost"))}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GitResult:
    """How a git command ended."""

    exit_code: int
    output: str
    stderr: str


class Git:
    """git in one directory. ``settings`` are the user's own that hold here, as ``name=value``."""

    def __init__(self, path: Path, *, settings: tuple[str, ...] = ()) -> None:
        self.path = path
        self._settings = settings

    @classmethod
    async def of_user(cls, path: Path) -> Self:
        """In a user's checkout: it ignores what the user ignores everywhere, and trusts whom the user trusts."""
        own = {name: os.environ[name] for name in _USERS_OWN if name in os.environ}
        env = {name: value for name, value in _environment().items() if name not in _USERS_OWN} | own
        question = r"^(core\.excludesfile|safe\.directory)$"
        command = ["git", "config", "--null", "--show-scope", "--type=path", "--get-regexp", question]
        # Where git cannot read the user's configuration it answers nothing, and nothing of it holds.
        words = (await run_command(command, cwd=path, env=env, timeout=_TIMEOUT)).output.split("\0")
        home = Path(own.get("XDG_CONFIG_HOME") or Path(own.get("HOME") or "/", ".config"))
        settings = [f"core.excludesFile={home / 'git' / 'ignore'}"]
        for scope, entry in pairwise(words):
            name, _, value = entry.partition("\n")
            if name == "core.excludesfile":
                settings.append(f"core.excludesFile={value}")
            elif name == "safe.directory" and scope in {"global", "system"}:
                # Never from the repository itself: it cannot vouch for itself.
                settings.append(f"safe.directory={value}")
        return cls(path, settings=tuple(settings))

    def at(self, path: Path) -> Git:
        """The same git, elsewhere."""
        return Git(path, settings=self._settings)

    async def run(self, *arguments: str, when: datetime | None = None, env: Mapping[str, str] | None = None) -> str:
        """Its output. ``when`` is the date of the commits it makes. Raises :class:`GitFailed`."""
        result = await self.tried(*arguments, when=when, env=env)
        if result.exit_code != 0:
            raise self.failure(arguments, result)
        return result.output

    async def tried(
        self, *arguments: str, when: datetime | None = None, env: Mapping[str, str] | None = None
    ) -> GitResult:
        """Its end, whatever it was; a lock that another git holds is waited for."""
        deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE
        pause = 0.02
        while True:
            result = await self._once(arguments, when, env or {})
            if not _locked(result) or asyncio.get_running_loop().time() > deadline:
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, 0.4)

    async def commit_of(self, revision: str) -> str | None:
        """The commit that a revision names, or None."""
        result = await self.tried("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        return result.output.strip() or None if result.exit_code == 0 else None

    async def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit is another's ancestor, or the same."""
        return (await self.tried("merge-base", "--is-ancestor", old, new)).exit_code == 0

    def failure(self, arguments: tuple[str, ...], result: GitResult) -> GitFailed:
        """The error for a result that nobody planned for."""
        lines = (result.stderr.strip() or result.output.strip() or "it said nothing").splitlines()
        return GitFailed(
            command=" ".join(arguments)[:200],
            path=str(self.path),
            exit_code=result.exit_code,
            reason="; ".join(lines[-5:])[:1000],
        )

    async def _once(self, arguments: tuple[str, ...], when: datetime | None, env: Mapping[str, str]) -> GitResult:
        result = await run_command(
            ["git", *_PREFIX, *(word for setting in self._settings for word in ("-c", setting)), *arguments],
            cwd=self.path,
            env=_environment() | _dates(when) | dict(env),
            timeout=_TIMEOUT,
            output_limit=_OUTPUT_LIMIT,
        )
        return GitResult(exit_code=result.exit_code, output=result.output, stderr=result.stderr)


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return inherited | _WHO | {
        "HOME": "/dev/null",
        "XDG_CONFIG_HOME": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_EDITOR": "true",
        "GIT_PAGER": "cat",
        "LC_ALL": "C",
    }  # fmt: skip


def _dates(when: datetime | None) -> dict[str, str]:
    if when is None:
        return {}
    seconds = f"{int(when.astimezone(UTC).timestamp())} +0000"
    return {"GIT_AUTHOR_DATE": seconds, "GIT_COMMITTER_DATE": seconds}


def _locked(result: GitResult) -> bool:
    """Whether another git stood in the way: by a lock file, or by a worktree that it is just making.

    A reference that moved (``is at ... but expected``) is no such case.
    """
    if result.exit_code == 0:
        return False
    locked = ".lock" in result.stderr and "File exists" in result.stderr
    return locked or ("failed to read" in result.stderr and "/worktrees/" in result.stderr)
