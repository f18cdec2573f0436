"""YAML 1.2, read into plain values that remember their lines.

The core schema and nothing more: no tags, no merge keys, one document, keys once
each. An anchor may be used again as long as the whole stays small. Knows nothing
of workflows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from hive_errors import Problem, WorkflowFileError

LARGEST_TEXT = 512 * 1024
MOST_NODES = 200_000
DEEPEST = 32

Path: TypeAlias = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,19}\Z")
_OCTAL = re.compile(r"0o[0-7]{1,21}\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value of the file and where it stands; lines and columns count from 1.

    ``value`` is a scalar, a list of nodes or a mapping of text to nodes; ``raw`` is a
    scalar as written; ``keys`` tells where each key of a mapping stands; ``size``
    counts the nodes within, this one included.
    """

    value: Any
    line: int
    column: int
    raw: str | None = None
    keys: dict[str, tuple[int, int]] | None = None
    size: int = 1

    def at(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at a path, of its key on request, or of the nearest thing above."""
        node = self
        for depth, part in enumerate(path):
            inner = node.child(part)
            if key and depth == len(path) - 1 and node.keys and part in node.keys:
                return node.keys[str(part)]
            if inner is None:
                break
            node = inner
        return node.line, node.column

    def child(self, part: str | int) -> Node | None:
        """Return what stands below a key or an index, or None."""
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            inner: Node = self.value[part]
            return inner
        return None


def read_yaml(text: str, *, file: str) -> Node:
    """Read one document.

    Raises:
        WorkflowFileError: it is not YAML 1.2, or uses what workflow files must not.
    """
    if len(text) > LARGEST_TEXT:
        _refuse(file, f"the file is larger than {LARGEST_TEXT // 1024} KiB")
    from ruamel.yaml import YAML  # here: nobody pays for it who reads no file
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Reader(YAML(typ="safe", pure=True).parse(text), file).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.problem, error.context) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse(file, f"is not YAML: {reason}", line, column, _remedy(text, line, column))
    except YAMLError as error:  # characters that no YAML file may hold
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        character = getattr(error, "character", 0)
        _refuse(file, f"holds a character that YAML forbids (code {character})", line, column)


def _refuse(file: str, reason: str, line: int = 1, column: int = 1, suggestion: str = "") -> NoReturn:
    problem = Problem(path=(), reason=reason, file=file, line=line, column=column, suggestion=suggestion)
    raise WorkflowFileError(file=file, problems=(problem,)) from None


def _remedy(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in written[: column + 1]:
        return "indent with spaces"
    rest = written[column - 1 :]
    if rest.startswith((":", "@", "`", "%")):
        return "put the whole text in quotes"
    return ""


class _Reader:
    """Builds nodes from the parser's events; ours, because a composer follows tags, aliases and depth blindly."""

    def __init__(self, events: Iterator[Any], file: str) -> None:
        self.events = events
        self.file = file
        self.anchors: dict[str, Node] = {}
        self.nodes = 0

    def document(self) -> Node:
        next(self.events)  # the stream begins
        start = next(self.events)
        if type(start).__name__ == "StreamEndEvent":
            _refuse(self.file, "the file is empty", suggestion="begin with `name:` and `steps:`")
        root = self._node(next(self.events), 0)
        next(self.events)  # the document ends
        after = next(self.events)
        if type(after).__name__ != "StreamEndEvent":
            self._fail(after, "a file holds one workflow", "put the second document into a file of its own")
        return root

    def _fail(self, event: Any, reason: str, suggestion: str = "") -> NoReturn:
        mark = event.start_mark
        _refuse(self.file, reason, mark.line + 1, mark.column + 1, suggestion)

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._aliased(event)
        if event.tag is not None:
            self._fail(event, "tags are not allowed", f"leave out {event.tag}")
        if depth > DEEPEST:
            self._fail(event, f"nested more than {DEEPEST} deep")
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if kind == "ScalarEvent":
            node = Node(value=self._scalar(event), raw=event.value, line=line, column=column)
        elif kind == "SequenceStartEvent":
            items = self._items(depth)
            node = Node(value=items, line=line, column=column, size=1 + sum(item.size for item in items))
        else:
            node = self._mapping(line, column, depth)
        self._count(event, 1)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _count(self, event: Any, size: int) -> None:
        self.nodes += size
        if self.nodes > MOST_NODES:
            self._fail(event, f"the file holds more than {MOST_NODES} values")

    def _aliased(self, event: Any) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            self._fail(event, f"nothing above has the anchor &{event.anchor}")
        self._count(event, node.size)
        return node

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while type(event := next(self.events)).__name__ != "SequenceEndEvent":
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, line: int, column: int, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        while type(event := next(self.events)).__name__ != "MappingEndEvent":
            if type(event).__name__ != "ScalarEvent":
                braces = type(event).__name__ == "MappingStartEvent"
                self._fail(
                    event,
                    "a key must be text",
                    "put a text that begins with {{ in quotes" if braces else "write the key as plain text",
                )
            key = event.value
            if key in values:
                self._fail(event, f"the key {key!r} is there twice (first in line {keys[key][0]})", "keep one of them")
            keys[key] = (event.start_mark.line + 1, event.start_mark.column + 1)
            values[key] = self._node(next(self.events), depth + 1)
        size = 1 + sum(value.size for value in values.values())
        return Node(value=values, keys=keys, line=line, column=column, size=size)

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.match(text) or _OCTAL.match(text) or _HEXADECIMAL.match(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            number = int(text, base)
            if not -(2**63) <= number < 2**63:
                self._fail(event, "a whole number of more than 64 bits", "put it in quotes")
            return number
        if _FLOAT.match(text):
            real = float(text)
            if real in (float("inf"), float("-inf")):
                self._fail(event, "a number beyond what can be kept", "put it in quotes")
            return real
        return text
