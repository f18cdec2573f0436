"""read, write, edit and list: the tools for one file or one directory."""

from __future__ import annotations

import os
import stat
from typing import Annotated, Final

from pydantic import Field

from agents.tool import ToolContext, ToolOutcome, storable
from agents.tools.function import tool
from agents.tools.rooted import Rooted
from hive_bus.effects import EffectClass
from hive_errors import PathUnusable, ToolInputInvalid

__all__ = ["edit", "list_", "read", "write"]

READ_CHARACTERS: Final = 128 * 1024
LINE_CHARACTERS: Final = 2000
EDIT_BYTES: Final = 8 * 1024 * 1024
LIST_ENTRIES: Final = 1000
_SNIFF: Final = 8192

PathField = Annotated[str, Field(description="Path relative to the workspace.", min_length=1)]


@tool(effect=EffectClass.PURE)
def read(
    ctx: ToolContext,
    path: PathField,
    offset: Annotated[int, Field(description="First line to show, from 1.", ge=1)] = 1,
    limit: Annotated[int, Field(description="How many lines to show.", ge=1, le=10_000)] = 2000,
) -> ToolOutcome:
    """Read a text file. Each line is shown with its number and a tab; long files in parts, with offset and limit."""
    with Rooted(ctx.root, ctx.policy).open_file(path) as (handle, place), os.fdopen(os.dup(handle), "rb") as file:
        if b"\0" in file.read(_SNIFF):
            raise PathUnusable(path=place.path, reason="it is a binary file")
        file.seek(0)
        shown: list[str] = []
        size = number = 0
        more = False
        while raw := file.readline(LINE_CHARACTERS * 4):
            number += 1
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LINE_CHARACTERS * 4)  # the rest of a line that is too long to show
            if number < offset:
                continue
            if len(shown) >= limit or size > READ_CHARACTERS:
                more = True
                break
            cut = line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]} [... line cut ...]"
            shown.append(f"{number:>6}\t{cut}")
            size += len(shown[-1])
    if not shown and offset > 1:
        raise ToolInputInvalid(field="offset", value=str(offset), reason=f"the file has {number} lines")
    if more:
        shown.append(f"[... more lines; continue with offset {offset + len(shown)} ...]")
    return ToolOutcome(output=storable("\n".join(shown)), truncated=more)


@tool(effect=EffectClass.IDEMPOTENT)
def write(
    ctx: ToolContext,
    path: PathField,
    content: Annotated[str, Field(description="The whole new content of the file.")],
) -> ToolOutcome:
    """Write a file, whole. Directories on the way are made; a file that is there is replaced."""
    data = _encoded("content", content)
    place, is_new = Rooted(ctx.root, ctx.policy).replace(path, data)
    return ToolOutcome(output=f"{'created' if is_new else 'replaced'} {storable(place.path)}: {len(data)} bytes")


@tool(effect=EffectClass.IDEMPOTENT)
def edit(
    ctx: ToolContext,
    path: PathField,
    old: Annotated[str, Field(description="Text to replace, exactly as it is in the file.", min_length=1)],
    new: Annotated[str, Field(description="Text to put in its place.")],
    *,
    replace_all: Annotated[
        bool, Field(description="Replace every occurrence; else there must be exactly one.")
    ] = False,
) -> ToolOutcome:
    """Replace text in a file. The old text must occur exactly once, unless replace_all is true."""
    if old == new:
        raise ToolInputInvalid(field="new", value=repr(new[:100]), reason="it is the same as the old text")
    rooted = Rooted(ctx.root, ctx.policy)
    with rooted.open_file(path) as (handle, place):
        content = _content(handle, place.path)
    before, after = _encoded("old", old), _encoded("new", new)
    if before not in content and b"\r\n" in content and b"\r" not in before:
        # Lines are shown without their ends, so a model cannot know that this file has two characters there.
        before, after = before.replace(b"\n", b"\r\n"), after.replace(b"\n", b"\r\n")
    count = content.count(before)
    if count == 0:
        raise ToolInputInvalid(
            field="old", value=repr(old[:100]), reason=f"it does not occur in {place.path}; read the file again"
        )
    if count > 1 and not replace_all:
        lines = ", ".join(map(str, _lines_of(content, before)))
        reason = f"it occurs {count} times, on lines {lines}; give more text around it, or replace_all"
        raise ToolInputInvalid(field="old", value=repr(old[:100]), reason=reason)
    rooted.replace(path, content.replace(before, after))
    return ToolOutcome(output=f"replaced {count} occurrence{'s' if count > 1 else ''} in {storable(place.path)}")


@tool(effect=EffectClass.PURE, name="list")
def list_(
    ctx: ToolContext,
    path: Annotated[str, Field(description="Directory relative to the workspace.", min_length=1)] = ".",
) -> ToolOutcome:
    """List a directory: directories with a slash at the end, links with an arrow, files with their size in bytes."""
    entries: list[str] = []
    hidden = 0
    with Rooted(ctx.root, ctx.policy).open_directory(path) as (handle, place), os.scandir(handle) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if ctx.policy.denial([*place.parts, entry.name]):
                hidden += 1
            else:
                entries.append(_described(entry, handle))
    notes = [f"[... {len(entries) - LIST_ENTRIES} more entries ...]"] if len(entries) > LIST_ENTRIES else []
    if hidden:
        notes.append(f"[{hidden} denied by the policy]")
    lines = [*entries[:LIST_ENTRIES], *notes] or ["[empty]"]
    return ToolOutcome(output=storable("\n".join(lines)), truncated=len(entries) > LIST_ENTRIES)


def _described(entry: os.DirEntry[str], directory: int) -> str:
    try:
        found = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return f"{entry.name} -> {os.readlink(entry.name, dir_fd=directory)}"
    except FileNotFoundError:
        return f"{entry.name} [gone]"
    return f"{entry.name}/" if stat.S_ISDIR(found.st_mode) else f"{entry.name} {found.st_size}"


def _content(handle: int, path: str) -> bytes:
    size = os.fstat(handle).st_size
    if size > EDIT_BYTES:
        raise PathUnusable(path=path, reason=f"it has {size} bytes, more than the {EDIT_BYTES} that can be edited")
    with os.fdopen(os.dup(handle), "rb") as file:
        content = file.read(EDIT_BYTES + 1)
    if b"\0" in content[:_SNIFF]:
        raise PathUnusable(path=path, reason="it is a binary file")
    return content


def _lines_of(content: bytes, text: bytes, most: int = 10) -> list[int]:
    lines: list[int] = []
    at = content.find(text)
    while at >= 0 and len(lines) < most:
        lines.append(content.count(b"\n", 0, at) + 1)
        at = content.find(text, at + len(text))
    return lines


def _encoded(field: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as problem:
        raise ToolInputInvalid(
            field=field, value=f"character {problem.start}", reason="a lone surrogate is no text"
        ) from problem
