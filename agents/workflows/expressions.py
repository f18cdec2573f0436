"""Conditions: whether the ``when`` of a step holds, judged inside the queen.

A condition is a function of the steps before it and nothing else: no clock, no
files, no environment, no code of its own. What it may say is
``expression_grammar``'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from agents.workflows.grammar import (
    FUNCTIONS,
    Both,
    Call,
    Compare,
    Constant,
    Either,
    Expression,
    Negation,
    Node,
    Operator,
    Value,
    number,
    parse_expression,
)
from agents.workflows.references import Reference, ReferenceFault, Scope, StepView, look_up
from hive_errors import ExpressionError

_STATUS_OF = {"failed": "failed", "succeeded": "completed", "skipped": "skipped", "cancelled": "cancelled"}


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
            return any(step in self.view and self.view[step].status == "failed" for step in self.ancestors)
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
        return number(value.strip())
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


__all__ = ["FUNCTIONS", "Expression", "StepView", "evaluate", "parse_expression"]
