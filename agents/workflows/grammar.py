"""The grammar of conditions: from the text of ``when`` to a tree.

Its whole grammar::

    or      := and ("or" and)*
    and     := not ("and" not)*
    not     := "not" not | compare
    compare := value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)?
    value   := text | number | "true" | "false" | "null" | "(" or ")"
             | name "(" [or ("," or)*] ")" | "steps." id "." field

Pure; it knows what a condition says, not whether it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NoReturn, TypeAlias

from agents.workflows.references import Reference, ReferenceFault, did_you_mean, parse_reference
from hive_errors import ExpressionError

LONGEST = 4_000
DEEPEST = 40
FUNCTIONS: Mapping[str, tuple[int, int]] = {
    "success": (0, 0),
    "always": (0, 0),
    "failed": (0, 1),
    "succeeded": (1, 1),
    "skipped": (1, 1),
    "cancelled": (1, 1),
    "contains": (2, 2),
}
_CONSTANTS = {"true": True, "false": False, "null": None}
_FOREIGN = {"&&": "and", "||": "or", "!": "not", "=": "=="}

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Node: TypeAlias = "Constant | Value | Call | Compare | Both | Either | Negation"


@dataclass(frozen=True, slots=True)
class Constant:
    """A text, a number, true, false or null."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Value:
    """Something a step left behind."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Call:
    """One of the functions of the language."""

    name: str
    arguments: tuple[Node, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values side by side."""

    operator: Operator
    left: Node
    right: Node
    column: int


@dataclass(frozen=True, slots=True)
class Both:
    """All of them hold."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of them holds."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """It does not hold."""

    term: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A condition that has been read; ``steps`` are the steps it names, each with its column (from 1)."""

    text: str
    root: Node
    steps: tuple[tuple[str, int], ...]


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """Read a condition.

    Raises:
        ExpressionError: it is not one; ``column`` counts from 1.
    """
    if len(text) > LONGEST:
        raise ExpressionError(expression=text[:40], column=1, reason=f"longer than {LONGEST} characters")
    return _Parser(text).parse()


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.])
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<operator>==|!=|<=|>=|<|>)
      | (?P<mark>[(),])
      | (?P<foreign>&&|\|\||!|=)
      | (?P<end>\Z)
      | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t"}


class _Parser:
    """Recursive descent over the text, one token of lookahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps: list[tuple[str, int]] = []
        self.depth = 0
        self.kind, self.lexeme, self.start, self.end = "end", "", 0, 0
        self._advance_to(0)

    def parse(self) -> Expression:
        if self.kind == "end":
            self._fail("an empty condition", suggestion="leave `when` out for success(), or write always()")
        root = self._either()
        if self.kind != "end":
            self._fail(f"{self.lexeme!r} is not expected here")
        return Expression(text=self.text, root=root, steps=tuple(self.steps))

    def _fail(self, reason: str, *, at: int | None = None, suggestion: str = "") -> NoReturn:
        column = (self.start if at is None else at) + 1
        raise ExpressionError(expression=self.text, column=column, reason=reason, suggestion=suggestion)

    def _advance_to(self, position: int) -> None:
        match = _TOKEN.match(self.text, position)
        if match is None or match.lastgroup is None:  # the pattern ends in "any character", so this is the end
            self.kind, self.lexeme, self.start, self.end = "end", "", len(self.text), len(self.text)
            return
        self.kind, self.lexeme = match.lastgroup, match.group(match.lastgroup)
        self.start, self.end = match.span(match.lastgroup)
        if self.kind == "foreign":
            self._fail(f"{self.lexeme!r} is not an operator", suggestion=f"write {_FOREIGN[self.lexeme]}")
        if self.kind == "other":
            unclosed = self.lexeme in "'\""
            self._fail("a text that is not closed" if unclosed else f"{self.lexeme!r} is not expected here")

    def _take(self, kind: str, lexeme: str) -> bool:
        if self.kind == kind and self.lexeme == lexeme:
            self._advance_to(self.end)
            return True
        return False

    def _either(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            self._fail(f"nested more than {DEEPEST} deep")
        terms = [self._both()]
        while self._take("name", "or"):
            terms.append(self._both())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def _both(self) -> Node:
        terms = [self._negation()]
        while self._take("name", "and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else Both(tuple(terms))

    def _negation(self) -> Node:
        negated = False
        met = False
        while self._take("name", "not"):
            negated, met = not negated, True
        term = self._compare()
        if not met:
            return term
        return Negation(term) if negated else Negation(Negation(term))

    def _compare(self) -> Node:
        left = self._value()
        if self.kind != "operator":
            return left
        operator, column = self.lexeme, self.start + 1
        self._advance_to(self.end)
        right = self._value()
        if self.kind == "operator":
            self._fail("comparisons do not chain", suggestion="join them with `and`")
        return Compare(_operator(operator), left, right, column)

    def _value(self) -> Node:
        kind, lexeme, start = self.kind, self.lexeme, self.start
        if kind == "number":
            self._advance_to(self.end)
            return Constant(number(lexeme))
        if kind == "text":
            self._advance_to(self.end)
            return Constant(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), lexeme[1:-1], flags=re.DOTALL))
        if self._take("mark", "("):
            inner = self._either()
            self._close()
            return inner
        if kind != "name" or lexeme in ("and", "or", "not"):
            self._fail("a value is expected", at=start)
        if lexeme in _CONSTANTS:
            self._advance_to(self.end)
            return Constant(_CONSTANTS[lexeme])
        if lexeme == "steps":
            return self._reference()
        return self._call()

    def _reference(self) -> Node:
        try:
            reference, end = parse_reference(self.text, self.start)
        except ReferenceFault as fault:
            self._fail(fault.reason, at=fault.offset, suggestion=fault.suggestion)
        self.steps.append((reference.name, reference.offset + 1))
        self._advance_to(end)
        return Value(reference)

    def _call(self) -> Node:
        name, start = self.lexeme, self.start
        self._advance_to(self.end)
        if name not in FUNCTIONS:
            known = tuple(FUNCTIONS)
            suggestion = did_you_mean(name, known) or f"the functions are {', '.join(known)}"
            self._fail(f"{name!r} is unknown", at=start, suggestion=suggestion)
        if not self._take("mark", "("):
            self._fail(f"{name} is a function", at=start, suggestion=f"write {name}()")
        arguments: list[Node] = []
        columns: list[int] = []
        while not (self.kind == "mark" and self.lexeme == ")"):
            columns.append(self.start + 1)
            arguments.append(self._either())
            if not self._take("mark", ","):
                break
        self._close()
        self._check_arguments(name, start, arguments, columns)
        return Call(name, tuple(arguments), start + 1)

    def _check_arguments(self, name: str, start: int, arguments: list[Node], columns: list[int]) -> None:
        fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            wanted = str(most) if fewest == most else f"{fewest} or {most}"
            self._fail(f"{name}() takes {wanted} arguments, not {len(arguments)}", at=start)
        if name == "contains":
            return
        for argument, column in zip(arguments, columns, strict=True):
            if not (isinstance(argument, Constant) and isinstance(argument.value, str)):
                self._fail(f"{name}() takes the id of a step", at=column - 1, suggestion=f"write {name}('ID')")
            self.steps.append((argument.value, column))

    def _close(self) -> None:
        if not self._take("mark", ")"):
            self._fail("')' is expected")


def _operator(token: str) -> Operator:
    match token:
        case "==" | "!=" | "<" | "<=" | ">" | ">=":
            return token
        case _:
            raise ValueError(token)


def number(text: str) -> int | float:
    """Return a number as written: whole where it is and is not huge."""
    return int(text) if text.lstrip("-").isdigit() and len(text) <= 20 else float(text)
