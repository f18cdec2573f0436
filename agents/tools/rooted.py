"""Paths that cannot leave a directory, whatever links and races there are on the way.

It owns how a tool's path becomes an open file. Every part is opened relative to the handle of the
part before it, and the kernel never follows a link (``O_NOFOLLOW``): a link is read as text and
walked like the rest of the path, so it may lead anywhere inside and nowhere else, and a directory
that is swapped for a link between two calls is refused, not followed. It must not know any tool.

Two things are out of reach: a hard link to a file outside (it *is* that file), and a directory that
somebody with the same rights moves out of the workspace while it is open here.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.policy import Policy
from hive_errors import PathOutsideWorkspace, PathUnusable, ToolInputInvalid

__all__ = ["Place", "Rooted", "open_below", "open_regular", "reason_of"]

_LINKS: Final = 40
_PATH_LENGTH: Final = 4096
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for somebody to write into it.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a name in an open directory. ``name`` is empty for the workspace itself."""

    directory: int
    name: str
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The real path, relative to the workspace."""
        return "/".join(self.parts) or "."


class Rooted:
    """A workspace as tools see it. Its methods block: call them in a thread."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.root = root
        self.policy = policy

    @contextmanager
    def place(self, path: str, *, make_parents: bool = False) -> Iterator[Place]:
        """Walk to a path, of which the last part need not exist.

        Raises:
            PathOutsideWorkspace: It leads out, by its text or through a link.
            PathDenied: The policy denies one of its real parts.
            PathUnusable: A directory on the way is missing or none, or there are too many links.
            ToolInputInvalid: It is no path at all.
        """
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        names: list[str] = []
        pending = deque(self._parts(path, path))
        links = 0
        try:
            while pending:
                part = pending.popleft()
                if part == "..":
                    if not names:
                        raise PathOutsideWorkspace(path=path, reason="it climbs above the workspace")
                    names.pop()
                    handle = self._reopened(handle, names, path)
                    continue
                self.policy.check([*names, part])
                target = _link_target(part, handle)
                if target is not None:
                    links += 1
                    if links > _LINKS:
                        raise PathUnusable(path=path, reason=f"it leads through more than {_LINKS} symbolic links")
                    if target.startswith("/"):
                        names = []
                        handle = self._reopened(handle, names, path)
                    pending.extendleft(reversed(self._parts(target, path)))
                elif not pending:
                    yield Place(handle, part, (*names, part))
                    return
                else:
                    handle = _descended(handle, part, path, make=make_parents)
                    names.append(part)
            if names:
                # The path ended in `..` or in a link to such a place: give the directory a name in its parent.
                handle = self._reopened(handle, names[:-1], path)
            yield Place(handle, names[-1] if names else "", tuple(names))
        finally:
            os.close(handle)

    @contextmanager
    def open_file(self, path: str) -> Iterator[tuple[int, Place]]:
        """A regular file, open for reading. Raises what :meth:`place` does, and :class:`PathUnusable`."""
        with self.place(path) as place:
            if not place.name:
                raise PathUnusable(path=path, reason="it is a directory")
            handle = open_regular(place.directory, place.name, path)
            try:
                yield handle, place
            finally:
                os.close(handle)

    @contextmanager
    def open_directory(self, path: str) -> Iterator[tuple[int, Place]]:
        """A directory, open for listing. Raises what :meth:`place` does, and :class:`PathUnusable`."""
        with self.place(path) as place:
            try:
                handle = os.open(place.name or ".", _DIRECTORY, dir_fd=place.directory)
            except OSError as problem:
                raise PathUnusable(path=path, reason=reason_of(problem)) from problem
            try:
                yield handle, place
            finally:
                os.close(handle)

    def replace(self, path: str, data: bytes) -> tuple[Place, bool]:
        """Write a file whole: readers see all of the old one or all of the new. Returns its place and whether it is new."""
        with self.place(path, make_parents=True) as place:
            if not place.name:
                raise PathUnusable(path=path, reason="it is a directory")
            mode = _mode(place, path)
            temporary = f".hive-tmp-{secrets.token_hex(8)}"
            try:
                _write(place.directory, temporary, data, mode)
                os.rename(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
            except OSError as problem:
                raise PathUnusable(path=path, reason=reason_of(problem)) from problem
            finally:
                try:
                    os.unlink(temporary, dir_fd=place.directory)
                except FileNotFoundError:
                    pass  # renamed, as it should be
            return place, mode is None

    def _parts(self, text: str, path: str) -> list[str]:
        if not text or "\0" in text or len(text) > _PATH_LENGTH:
            reason = f"a path has 1 to {_PATH_LENGTH} characters and no NUL"
            raise ToolInputInvalid(field="path", value=repr(text[:200]), reason=reason)
        if text.startswith("/"):
            for root in (str(self.root), os.path.realpath(self.root)):
                if text == root or text.startswith(root.rstrip("/") + "/"):
                    text = text[len(root.rstrip("/")) :]
                    break
            else:
                reason = "it is absolute" if text == path else f"it leads to {text!r} through a symbolic link"
                raise PathOutsideWorkspace(path=path, reason=reason)
        return [part for part in text.split("/") if part not in {"", "."}]

    def _reopened(self, old: int, names: list[str], path: str) -> int:
        """The directory of these real names, from the root anew; ``old`` is closed only when it stands."""
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                handle = _descended(handle, name, path, make=False)
        except PathUnusable:
            os.close(handle)
            raise
        os.close(old)
        return handle


def open_regular(directory: int, name: str, path: str) -> int:
    """Open a regular file in an open directory, following nothing. Raises :class:`PathUnusable`."""
    try:
        handle = os.open(name, _READ, dir_fd=directory)
    except OSError as problem:
        raise PathUnusable(path=path, reason=reason_of(problem)) from problem
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return handle
    os.close(handle)
    raise PathUnusable(path=path, reason="it is a directory" if stat.S_ISDIR(kind) else "it is not a regular file")


def open_below(directory: int, name: str) -> int:
    """Open a directory in an open directory, following nothing. Raises ``OSError``."""
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _descended(handle: int, part: str, path: str, *, make: bool) -> int:
    """Go one directory down; the old handle is closed only when the new one stands."""
    try:
        if make:
            try:
                os.mkdir(part, dir_fd=handle)
            except FileExistsError:
                pass  # it is there, or somebody was faster; what it is, the next call sees
        below = os.open(part, _DIRECTORY, dir_fd=handle)
    except OSError as problem:
        raise PathUnusable(path=path, reason=f"{part!r}: {reason_of(problem)}") from problem
    os.close(handle)
    return below


def _link_target(part: str, handle: int) -> str | None:
    try:
        return os.readlink(part, dir_fd=handle)
    except OSError:
        return None  # no link, or not there: whoever opens it will see


def _mode(place: Place, path: str) -> int | None:
    """The permissions of what is there, None where nothing is. Raises :class:`PathUnusable` where a file cannot be put."""
    try:
        found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise PathUnusable(path=path, reason=reason_of(problem)) from problem
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise PathUnusable(path=path, reason=f"it is {kind}")
    return stat.S_IMODE(found.st_mode)


def _write(directory: int, name: str, data: bytes, mode: int | None) -> None:
    handle = os.open(name, _CREATE, 0o666, dir_fd=directory)
    with open(handle, "wb") as file:  # noqa: PTH123  a descriptor, not a path
        if mode is not None:
            os.fchmod(handle, mode)
        file.write(data)


def reason_of(problem: OSError) -> str:
    """Why the system refused, in words that a model understands."""
    match problem.errno:
        case errno.ENOENT:
            return "no such file or directory"
        case errno.ELOOP | errno.EMLINK:
            return "it became a symbolic link while it was opened"
        case errno.ENOTDIR:
            return "it is not a directory"
        case errno.ENXIO:
            return "it is not a regular file"
        case _:
            return problem.strerror or str(problem)
