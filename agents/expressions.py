"""Conditions: the small language of ``when``, read once and judged inside the queen.

A condition is a function of the steps before it and nothing else: no clock, no
files, no environment, no code of its own. Its whole grammar::

    or      := and ("or" and)*
    and     := not ("and" not)*
    not     := "not" not | compare
    compare := value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)?
    value   := text | number | "true" | "false" | "null" | "(" or ")"
             | name "(" [or ("," or)*] ")" | "steps." id "." field
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeAlias

from agents.references import (
    STATUSES,
    Reference,
    ReferenceFault,
    Scope,
    StepView,
    did_you_mean,
    look_up,
    parse_reference,
)
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
_STATUS_OF = {"failed": "failed", "succeeded": "completed", "skipped": "skipped", "cancelled": "cancelled"}
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


def evaluate(
    expression: str | Expression | None,
    view: Mapping[str, StepView],
    *,
    needs: Collection[str] = (),
    ancestors: Collection[str] | None = None,
) -> bool:
    """Judge a condition; None is the default, ``success()``.

    Args:
        expression: the text of ``when``, or what ``parse_expression`` made of it.
        view: the steps before this one, by id.
        needs: the step's own needs: ``success()`` asks them.
        ancestors: its needs and theirs, all the way up: ``failed()`` asks them. Default: ``needs``.

    Raises:
        ExpressionError: the text is no condition, or its values cannot be compared.
    """
    if expression is None:
        return _succeeded(view, needs)
    parsed = parse_expression(expression) if isinstance(expression, str) else expression
    judge = _Judge(parsed.text, view, needs, needs if ancestors is None else ancestors)
    return bool(judge.value(parsed.root))


def _succeeded(view: Mapping[str, StepView], needs: Collection[str]) -> bool:
    return all(need in view and view[need].status == "completed" for need in needs)


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
            return Constant(_number(lexeme))
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


def _number(token: str) -> int | float:
    return int(token) if token.lstrip("-").isdigit() and len(token) <= 20 else float(token)


_NUMERIC = re.compile(r"\s*-?[0-9]{1,400}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\s*\Z")


class _Judge:
    """The values of one condition over one view of the steps."""

    def __init__(
        self, text: str, view: Mapping[str, StepView], needs: Collection[str], ancestors: Collection[str]
    ) -> None:
        self.text = text
        self.scope = Scope(steps=view)
        self.view = view
        self.needs = needs
        self.ancestors = ancestors

    def value(self, node: Node) -> Any:
        match node:
            case Constant(value):
                return value
            case Value(reference):
                return self._looked_up(reference)
            case Call():
                return self._called(node)
            case Compare(operator, left, right, column):
                return self._compared(operator, self.value(left), self.value(right), column)
            case Both(terms):
                return all(self.value(term) for term in terms)
            case Either(terms):
                return any(self.value(term) for term in terms)
            case Negation(term):
                return not self.value(term)

    def _fail(self, reason: str, column: int, suggestion: str = "") -> NoReturn:
        raise ExpressionError(expression=self.text, column=column, reason=reason, suggestion=suggestion)

    def _looked_up(self, reference: Reference) -> Any:
        try:
            return look_up(reference, self.scope)
        except ReferenceFault as fault:
            self._fail(fault.reason, reference.offset + 1, fault.suggestion)

    def _called(self, call: Call) -> bool:
        if call.name == "always":
            return True
        if call.name == "success":
            return _succeeded(self.view, self.needs)
        if call.name == "contains":
            return self._contains(self.value(call.arguments[0]), self.value(call.arguments[1]), call.column)
        if not call.arguments:
            return any(self._status(step, call.column) == "failed" for step in self.ancestors)
        step = str(self.value(call.arguments[0]))
        return self._status(step, call.column) == _STATUS_OF[call.name]

    def _status(self, step: str, column: int) -> str:
        if step not in self.view:
            self._fail(f"there is no step {step!r} to ask", column)
        return self.view[step].status

    def _contains(self, whole: Any, part: Any, column: int) -> bool:
        if isinstance(whole, str):
            return (part if isinstance(part, str) else _as_text(part)) in whole
        if isinstance(whole, list):
            return any(_same(item, part) for item in whole)
        if isinstance(whole, dict):
            return isinstance(part, str) and part in whole
        if whole is not None:
            self._fail(f"contains() looks into text, a list or an object, not {_as_text(whole)}", column)
        return False

    def _compared(self, operator: Operator, left: Any, right: Any, column: int) -> bool:
        if operator in ("==", "!="):
            return _same(left, right) is (operator == "==")
        pair = _ordered_pair(left, right)
        if pair is None:
            self._fail(f"{_as_text(left)} {operator} {_as_text(right)} has no answer", column)
        low, high = pair
        match operator:
            case "<":
                return bool(low < high)
            case "<=":
                return bool(low <= high)
            case ">":
                return bool(low > high)
            case _:
                return bool(low >= high)


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_number(value: Any) -> int | float | None:
    if _is_number(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and _NUMERIC.match(value):
        return _number(value.strip())
    return None


def _ordered_pair(left: Any, right: Any) -> tuple[Any, Any] | None:
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    low, high = _as_number(left), _as_number(right)
    return None if low is None or high is None else (low, high)


def _same(left: Any, right: Any) -> bool:
    """Equality where output, which is always text, may equal a number, and true is not 1."""
    if isinstance(left, str) != isinstance(right, str) and (_is_number(left) or _is_number(right)):
        pair = _ordered_pair(left, right)
        return pair is not None and bool(pair[0] == pair[1])
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


__all__ = ["FUNCTIONS", "STATUSES", "Expression", "StepView", "evaluate", "parse_expression"]
