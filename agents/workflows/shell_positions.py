"""Where in a shell command a quoted value may stand.

A value is put into a command as ``'...'``. That is safe only where the shell
reads words: inside the author's own quotes, a comment, a here-document or
arithmetic the same characters would end a quote or be run. This module follows
the command up to each placeholder and says why a value may not stand there. It
errs on the refusing side and knows nothing of placeholders or steps.
"""

from __future__ import annotations

import re
from typing import Final

_DOUBLE: Final = '"'
_SINGLE: Final = "'"
_BACKTICK: Final = "`"
_ARITHMETIC: Final = "(("
_COMMENT: Final = "#"
_SUBSTITUTION: Final = "$("
_GROUP: Final = "("
_PARAMETER: Final = "${"
_QUOTED_PARAMETER: Final = '"${'
_WORD_START = frozenset(" \t\n;&|()<>")
_HERE = re.compile(r"<<(-?)[ \t]*((?:'[^'\n]+'|\"[^\"\n]+\"|\\.|[A-Za-z0-9_.+-])+)")

_REASONS = {
    _DOUBLE: "stands inside double quotes, where the value could run as a command",
    _SINGLE: "stands inside single quotes, which the value could close",
    _BACKTICK: "stands inside backticks, which the value could close",
    _ARITHMETIC: "stands inside (( )), where the value could run as a command",
    _COMMENT: "stands in a comment, which a value of two lines would leave",
    _PARAMETER: "stands inside ${ }, where shells quote differently",
    _QUOTED_PARAMETER: "stands inside ${ }, where shells quote differently",
}
UNQUOTED = "take the quotes away: the value is quoted for the shell already"
BY_VARIABLE = "set it under the step's env and use the variable"


class ShellPosition:
    """The quoting state of a POSIX shell after the text it has been fed."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._last = "\n"
        self._escaped = False
        self._lost = ""
        self._documents: list[tuple[str, bool]] = []
        self._in_document = False

    def refusal(self) -> tuple[str, str] | None:
        """Say why a value may not stand here, and what to do instead; None where it may."""
        if self._lost:
            return self._lost, BY_VARIABLE
        if self._in_document:
            return "stands in a here-document, where the value could run as a command", BY_VARIABLE
        top = self._stack[-1] if self._stack else ""
        if top in _REASONS:
            return _REASONS[top], UNQUOTED if top in (_SINGLE, _DOUBLE) else BY_VARIABLE
        if self._escaped:
            return "stands behind a backslash, which would escape its quote", "take the backslash away"
        if self._last == "$":
            return "stands behind a dollar sign, which would change its quote", "write {{ ... }} without the $"
        return None

    def value(self) -> None:
        """Pass over a value that stands here."""
        self._last, self._escaped = "x", False

    def feed(self, text: str) -> None:
        """Pass over text of the author's."""
        position = 0
        while position < len(text):
            position = self._read(text, position)

    def _read(self, text: str, at: int) -> int:
        if self._in_document:
            return self._document(text, at)
        char, top = text[at], self._stack[-1] if self._stack else ""
        if self._escaped:
            # An escaped newline joins two lines: what stood before it decides whether a `#` begins a comment.
            self._escaped = False
            return at + 1 if char == "\n" else self._passed("x", at + 1)
        if top == _SINGLE:
            return self._closing(_SINGLE, char, at)
        if top == _COMMENT:
            if char != "\n":
                return at + 1
            self._stack.pop()
        elif char == "\\":
            self._escaped = True
            return at + 1
        if top == _BACKTICK:
            return self._closing(_BACKTICK, char, at)
        if top == _DOUBLE and char == _DOUBLE:
            return self._closing(_DOUBLE, char, at)
        if top in (_DOUBLE, _ARITHMETIC, _PARAMETER, _QUOTED_PARAMETER):
            return self._substitution(text, at, inside=top)
        return self._word(text, at)

    def _passed(self, char: str, at: int) -> int:
        self._last = char
        return at

    def _closing(self, quote: str, char: str, at: int) -> int:
        if char == quote:
            self._stack.pop()
        return self._passed(char, at + 1)

    def _substitution(self, text: str, at: int, *, inside: str) -> int:
        """What still means something inside double quotes, arithmetic and ``${ }``."""
        char = text[at]
        if text.startswith("$((", at):
            self._stack += [_ARITHMETIC, _ARITHMETIC]
            return self._passed("(", at + 3)
        if text.startswith("$(", at):
            self._stack.append(_SUBSTITUTION)
            return self._passed("(", at + 2)
        if text.startswith("${", at):
            self._stack.append(_PARAMETER if inside == _PARAMETER else _QUOTED_PARAMETER)
            return self._passed("{", at + 2)
        if inside == _QUOTED_PARAMETER and char in (_SINGLE, _DOUBLE):
            # "${x:-'}" is whole for dash and an open quote for bash.
            self._lost = 'stands behind a quote inside "${ }", which shells read differently'
        elif char == _BACKTICK or (char == _DOUBLE and inside != _DOUBLE) or (char == _SINGLE and inside == _PARAMETER):
            self._stack.append(char)
        elif char == "(" and inside == _ARITHMETIC:
            self._stack.append(_ARITHMETIC)
        elif (char == ")" and inside == _ARITHMETIC) or (char == "}" and inside in (_PARAMETER, _QUOTED_PARAMETER)):
            self._stack.pop()
        return self._passed(char, at + 1)

    def _word(self, text: str, at: int) -> int:
        char = text[at]
        if char == _SINGLE and self._last == "$":
            # bash reads $'..' with escapes, other shells without: nobody can tell where it ends.
            self._lost = "stands behind a $'...' text, whose end differs between shells"
        if char in (_SINGLE, _DOUBLE, _BACKTICK):
            self._stack.append(char)
        elif char == "#" and self._last in _WORD_START:
            self._stack.append(_COMMENT)
        elif text.startswith("((", at):
            self._stack += [_ARITHMETIC, _ARITHMETIC]
            return self._passed("(", at + 2)
        elif char == "(":
            self._stack.append(_SUBSTITUTION if self._last == "$" else _GROUP)
        elif char == "{" and self._last == "$":
            self._stack.append(_PARAMETER)
        elif char == ")" and self._stack:
            self._stack.pop()
        elif text.startswith("<<", at):
            return self._here(text, at)
        elif char == "\n" and self._documents:
            self._in_document = True
        return self._passed(char, at + 1)

    def _here(self, text: str, at: int) -> int:
        if text.startswith("<<<", at):
            return self._passed("<", at + 3)
        match = _HERE.match(text, at)
        if match is None:
            self._lost = "stands behind a here-document whose end word cannot be read"
            return self._passed("<", at + 2)
        self._documents.append((re.sub(r"['\"\\]", "", match[2]), bool(match[1])))
        return self._passed("x", match.end())

    def _document(self, text: str, at: int) -> int:
        """Pass over one line of a here-document; its end word on a line of its own ends it."""
        end = text.find("\n", at)
        if end < 0:
            return len(text)
        word, tabs = self._documents[0]
        line = text[at:end]
        if (line.lstrip("\t") if tabs else line) == word:
            self._documents.pop(0)
            self._in_document = bool(self._documents)
        return self._passed("\n", end + 1)
