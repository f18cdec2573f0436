"""find and grep: the tools that walk the workspace, with limits on time, size and what they show."""

from __future__ import annotations

import fnmatch
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import regex
from pydantic import Field

from agents.tool import ToolContext, ToolOutcome, storable
from agents.tools.function import tool
from agents.tools.rooted import Rooted, open_below, open_regular, reason_of
from hive_bus.effects import EffectClass
from hive_errors import PathUnusable, ToolInputInvalid

__all__ = ["find", "grep", "translated"]

SECONDS: Final = 20.0
"""How long a search may take, where the call has no shorter limit."""
FILE_BYTES: Final = 4 * 1024 * 1024
"""Files over this size are not searched."""
RESULTS: Final = 500
LINE_CHARACTERS: Final = 400
PATTERN_CHARACTERS: Final = 1000
# Directories that are large, derived, and never what anybody looks for; naming one as `path` searches it all the same.
SKIPPED: Final = frozenset(
    {
        "node_modules",
        "__pycache__",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".cache",
    }
)
_DEPTH: Final = 64

GlobField = Annotated[
    str,
    Field(
        description="Shell pattern; ** crosses directories. Without a slash it matches names anywhere.", min_length=1
    ),
]


@tool(effect=EffectClass.PURE)
def find(
    ctx: ToolContext,
    pattern: GlobField,
    path: Annotated[str, Field(description="Directory to search below.", min_length=1)] = ".",
) -> ToolOutcome:
    """Find files whose path matches a shell pattern such as *.py or src/**/test_*.py."""
    search = _Search(ctx)
    wanted = search.glob(pattern)
    found: list[str] = []
    for seen in search.files(path):
        if search.matches(wanted, seen.below):
            found.append(seen.path)
            if len(found) >= RESULTS:
                search.stopped = f"stopped after {RESULTS} results"
                break
    return search.outcome(found, nothing="no file matches")


@tool(effect=EffectClass.PURE)
def grep(
    ctx: ToolContext,
    pattern: Annotated[str, Field(description="Regular expression, searched for line by line.", min_length=1)],
    path: Annotated[str, Field(description="File or directory to search.", min_length=1)] = ".",
    glob: Annotated[str | None, Field(description="Only files that match this shell pattern.", min_length=1)] = None,
    *,
    ignore_case: Annotated[bool, Field(description="Whether capital and small letters are the same.")] = False,
) -> ToolOutcome:
    """Search files for a regular expression. Each match is shown as path:line:text."""
    search = _Search(ctx)
    wanted = search.pattern(pattern, ignore_case=ignore_case)
    only = search.glob(glob) if glob is not None else None
    found: list[str] = []
    for seen in search.files(path, may_be_file=True):
        if only is not None and not search.matches(only, seen.below):
            continue
        for number, line in search.lines(seen):
            if search.matches(wanted, line):
                found.append(f"{seen.path}:{number}:{line[:LINE_CHARACTERS]}")
            if len(found) >= RESULTS:
                search.stopped = f"stopped after {RESULTS} results"
                break
        if search.stopped:
            break
    return search.outcome(found, nothing="no line matches")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file on the way: its name in an open directory, its path from the workspace, and from where the search began."""

    directory: int
    name: str
    path: str
    below: str


class _Search:
    """One search: its deadline, its notes, and the walk that both tools share."""

    def __init__(self, ctx: ToolContext) -> None:
        self._rooted = Rooted(ctx.root, ctx.policy)
        # A thread cannot be ended from outside: the search itself must keep the call's limit.
        self._deadline = time.monotonic() + min(SECONDS, SECONDS if ctx.timeout is None else ctx.timeout)
        self.stopped = ""
        self._unread = 0

    def files(self, path: str, *, may_be_file: bool = False) -> Iterator[_Seen]:
        """Regular files below a directory, depth first, in the order of their names; or the one file."""
        if may_be_file:
            with self._rooted.place(path) as place:
                kind = _kind(place.directory, place.name or ".", path)
                if stat.S_ISREG(kind):
                    yield _Seen(place.directory, place.name, place.path, place.name)
                    return
        with self._rooted.open_directory(path) as (handle, place):
            yield from self._below(handle, place.parts, len(place.parts))

    def _below(self, directory: int, parts: tuple[str, ...], start: int) -> Iterator[_Seen]:
        with os.scandir(directory) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            if time.monotonic() > self._deadline:
                self.stopped = self.stopped or "stopped: it took too long"
            if self.stopped:
                return
            here = (*parts, entry.name)
            if self._rooted.policy.denial((entry.name,)):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name in SKIPPED or len(here) > _DEPTH:
                    continue
                try:
                    handle = open_below(directory, entry.name)
                except OSError:
                    self._unread += 1
                    continue
                try:
                    yield from self._below(handle, here, start)
                finally:
                    os.close(handle)
            elif entry.is_file(follow_symlinks=False):
                yield _Seen(directory, entry.name, "/".join(here), "/".join(here[start:]))

    def lines(self, seen: _Seen) -> Iterator[tuple[int, str]]:
        """The numbered lines of a text file; none of a binary, a huge or an unreadable one."""
        try:
            handle = open_regular(seen.directory, seen.name, seen.path)
        except PathUnusable:
            self._unread += 1
            return
        with os.fdopen(handle, "rb") as file:
            content = file.read(FILE_BYTES + 1)
        if len(content) > FILE_BYTES or b"\0" in content[:8192]:
            self._unread += 1
            return
        yield from enumerate(content.decode("utf-8", "replace").splitlines(), 1)

    def pattern(self, text: str, *, ignore_case: bool) -> regex.Pattern[str]:
        """A compiled expression. Raises :class:`ToolInputInvalid`."""
        if len(text) > PATTERN_CHARACTERS:
            raise ToolInputInvalid(
                field="pattern", value=f"{len(text)} characters", reason=f"at most {PATTERN_CHARACTERS}"
            )
        try:
            return regex.compile(text, regex.IGNORECASE if ignore_case else 0)
        except (regex.error, OverflowError, RecursionError) as problem:
            raise ToolInputInvalid(field="pattern", value=repr(text), reason=str(problem)) from problem

    def glob(self, text: str) -> regex.Pattern[str]:
        """A compiled shell pattern. Raises :class:`ToolInputInvalid`."""
        return self.pattern(translated(text), ignore_case=False)

    def matches(self, pattern: regex.Pattern[str], text: str) -> bool:
        """Whether the pattern is found in the text; an expression that never ends is stopped with the search."""
        try:
            # `concurrent` lets the event loop run meanwhile, `timeout` ends an expression that tries everything.
            return (
                pattern.search(text, timeout=max(0.01, self._deadline - time.monotonic()), concurrent=True) is not None
            )
        except TimeoutError:
            self.stopped = "stopped: the expression took too long; make it simpler"
            return False

    def outcome(self, found: list[str], *, nothing: str) -> ToolOutcome:
        """What was found, and what was not looked at."""
        notes = [f"[{self.stopped}]"] if self.stopped else []
        if self._unread:
            notes.append(f"[{self._unread} binary, large or unreadable left out]")
        return ToolOutcome(
            output=storable("\n".join([*(found or [f"[{nothing}]"]), *notes])),
            data={"count": len(found)},
            truncated=bool(self.stopped),
        )


def _kind(directory: int, name: str, path: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError as problem:
        raise PathUnusable(path=path, reason=reason_of(problem)) from problem


def translated(glob: str) -> str:
    """A shell pattern as a regular expression over a whole path."""
    glob = glob.removeprefix("./")
    prefix = "" if "/" in glob else "(?:.*/)?"
    out: list[str] = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] == "[" and (end := glob.find("]", at + (3 if glob.startswith("[!", at) else 2))) > 0:
            # The standard library knows what is between brackets; a slash is never matched by it.
            inner = fnmatch.translate(glob[at : end + 1]).removeprefix("(?s:")
            out.append(f"(?!/){inner[: inner.rindex(')')]}")
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(glob[at]) or regex.escape(glob[at]))
            at += 1
    return rf"(?s)\A{prefix}{''.join(out)}\Z"
