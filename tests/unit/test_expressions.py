"""Conditions: what they mean, how they are refused, and where the fault stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.workflows.expressions import evaluate, parse_expression
from agents.workflows.references import Scope, StepView, look_up, parse_reference
from hive_errors import ExpressionError

VIEW = {
    "test": StepView(status="failed", output="2 failed, 3 passed", exit_code=1),
    "lint": StepView(status="completed", output="", exit_code=0),
    "data": StepView(status="completed", output='{"n": 12, "ok": true, "tags": ["a", "b"], "x": null}', exit_code=0),
    "count": StepView(status="completed", output="12", exit_code=0),
    "docs": StepView(status="skipped"),
    "stop": StepView(status="cancelled"),
    "my-step": StepView(status="completed", output="dash", exit_code=0),
    "7": StepView(status="completed", output="seven", exit_code=0),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("always()", True),
        ("true", True),
        ("false or null", False),
        ("failed('test')", True),
        ('failed("lint")', False),
        ("succeeded('lint') and not succeeded('test')", True),
        ("skipped('docs') and cancelled('stop')", True),
        ("steps.test.exit_code == 1", True),
        ("steps.test.exit_code != 1", False),
        ("steps.docs.exit_code == null", True),
        ("steps.test.status == 'failed'", True),
        ("contains(steps.test.output, '2 failed')", True),
        ("contains(steps.data.json.tags, 'b')", True),
        ("contains(steps.data.json.tags, 'c')", False),
        ("contains(steps.data.json, 'ok')", True),
        ("contains(steps.docs.json, 'ok')", False),
        ("contains(steps.count.output, 2)", True),
        ("steps.data.json.n > 3 and steps.data.json.n <= 12", True),
        ("steps.data.json.n >= 12.5", False),
        ("steps.data.json.tags[-1] == 'b'", True),
        ("steps.data.json.tags[2] == null", True),
        ("steps.data.json['n'] == 12", True),
        ("steps.data.json.missing.deeper == null", True),
        ("steps.data.json.x", False),
        ("steps.count.output == 12", True),
        ("steps.count.output == '12'", True),
        ("steps.count.output > 9", True),
        ("steps.count.output < '9'", True),
        ("steps.test.output == 12", False),
        ("true == 1", False),
        ("1 == 1.0", True),
        ("-1 < 0", True),
        ("'it\\'s' == \"it's\"", True),
        ("steps.my-step.output == 'dash'", True),
        ("steps['my-step'].output == 'dash'", True),
        ("steps.7.output == 'seven'", True),
        ("not not failed('test')", True),
        ("not failed('lint') and false", False),
        ("true or false and false", True),
        ("(true or false) and false", False),
        ("steps.lint.output", False),
        ("steps.test.output", True),
        (" \n always ( ) ", True),
    ],
)
def test_what_a_condition_means(text: str, *, holds: bool) -> None:
    """Each construct of the language gives its documented answer."""
    assert evaluate(text, VIEW, needs=("test", "lint")) is holds


@pytest.mark.parametrize(
    ("text", "column", "reason", "suggestion"),
    [
        ("", 1, "an empty condition", "leave `when` out for success(), or write always()"),
        ("failed('test') && true", 16, "'&&' is not an operator", "write and"),
        ("true || false", 6, "'||' is not an operator", "write or"),
        ("!true", 1, "'!' is not an operator", "write not"),
        ("1 = 1", 3, "'=' is not an operator", "write =="),
        ("1 < 2 < 3", 7, "comparisons do not chain", "join them with `and`"),
        ("succes()", 1, "'succes' is unknown", "did you mean success?"),
        ("zzz()", 1, "'zzz' is unknown", "the functions are success, always, failed"),
        ("failed", 1, "failed is a function", "write failed()"),
        ("failed('a', 'b')", 1, "failed() takes 0 or 1 arguments, not 2", ""),
        ("succeeded()", 1, "succeeded() takes 1 arguments, not 0", ""),
        ("failed(steps.a.output)", 8, "failed() takes the id of a step", "write failed('ID')"),
        ("failed('test'", 14, "')' is expected", ""),
        ("(true", 6, "')' is expected", ""),
        ("true)", 5, "')' is not expected here", ""),
        ("'open", 1, "a text that is not closed", ""),
        ("true and", 9, "a value is expected", ""),
        ("steps.test.ouput", 1, "a step has no 'ouput'", "did you mean output?"),
        ("steps.test", 1, "steps.test needs a field behind it", "a step has output, exit_code, status, json"),
        (
            "steps.test.output.length",
            1,
            "output has nothing below it",
            "write steps.test.json to look into JSON output",
        ),
        ("steps.test.json[x]", 16, "[0] or ['name'] is expected", ""),
        ("steps..output", 7, "a name is expected after the dot", ""),
        ("1 @ 2", 3, "'@' is not expected here", ""),
        ("(" * 60 + "1" + ")" * 60, 41, "nested more than 40 deep", ""),
        ("x" * 5000, 1, "longer than 4000 characters", ""),
    ],
)
def test_how_a_condition_is_refused(text: str, column: int, reason: str, suggestion: str) -> None:
    """The error names the character at which reading stopped, the reason, and what to write instead."""
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert (caught.value.column, caught.value.reason) == (column, reason)
    assert caught.value.suggestion.startswith(suggestion)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("steps.test.json.n == 1", "the output of step 'test' is not JSON"),
        ("steps.data.json.tags > 1", "['a', 'b'] > 1 has no answer"),
        ("null < 1", "null < 1 has no answer"),
        ("contains(1, 1)", "contains() looks into text, a list or an object, not 1"),
        ("contains(true, 1)", "contains() looks into text, a list or an object, not true"),
        ("failed('nobody')", "there is no step 'nobody' to ask"),
        ("steps.nobody.output == ''", "there is no step 'nobody' to read from"),
    ],
)
def test_a_condition_without_an_answer_says_why(text: str, reason: str) -> None:
    """What cannot be judged is an error with a reason, never a silent no."""
    with pytest.raises(ExpressionError, match="condition") as caught:
        evaluate(text, VIEW)
    assert caught.value.reason.startswith(reason)


def test_the_default_asks_the_direct_needs() -> None:
    """Without a condition a step runs when each of its needs has completed; a skipped need is no success."""
    assert evaluate(None, VIEW, needs=("lint", "data"))
    assert evaluate(None, VIEW, needs=())
    assert not evaluate(None, VIEW, needs=("lint", "test"))
    assert not evaluate(None, VIEW, needs=("docs",))
    assert not evaluate("success()", VIEW, needs=("unseen",))


def test_a_failure_is_seen_from_further_down() -> None:
    """`failed()` asks all ancestors: the step between may only have been skipped."""
    assert not evaluate("failed()", VIEW, needs=("docs",))
    assert evaluate("failed()", VIEW, needs=("docs",), ancestors=("docs", "test"))


def test_a_condition_names_its_steps() -> None:
    """Reading lists every step that is asked, with the column of each."""
    parsed = parse_expression("failed('a') or steps.b-c.output == 'x' or steps['d'].json.e")
    assert parsed.steps == (("a", 8), ("b-c", 16), ("d", 43))


def test_json_that_is_hostile_is_no_crash() -> None:
    """Output nested without end, or with NaN in it, is simply not JSON."""
    for output in ("[" * 100_000, "NaN", '{"a": Infinity}'):
        view = {"a": StepView(status="completed", output=output)}
        with pytest.raises(ExpressionError, match="is not JSON"):
            evaluate("steps.a.json.b == 1", view)


_ATOMS = st.sampled_from(["true", "false", "succeeded('a')", "failed('a')", "steps.a.exit_code == 0"])
_CONDITIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not {text}"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' and '.join(terms)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda terms: f"({' or '.join(terms)})"),
    ),
    max_leaves=12,
)


@given(_CONDITIONS)
def test_logic_agrees_with_python(text: str) -> None:
    """Precedence and truth of and, or, not and parentheses are those of Python."""
    view = {"a": StepView(status="completed", exit_code=0)}
    names = {"true": "True", "false": "False", "succeeded('a')": "True", "failed('a')": "False"}
    python = text.replace("steps.a.exit_code == 0", "True")
    for name, value in names.items():
        python = python.replace(name, value)
    assert evaluate(text, view) is eval(python, {})


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader do anything but return or raise its own error."""
    column = 1
    try:
        parse_expression(text)
    except ExpressionError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1


def test_a_reference_knows_where_it_ends() -> None:
    """What follows a reference is left to whoever reads on."""
    reference, end = parse_reference("x steps.a.json.b[0]['c d'] }}", 2)
    assert (reference.name, reference.field, reference.keys) == ("a", "json", ("b", 0, "c d"))
    assert end == 26
    assert look_up(reference, _scope('{"b": [{"c d": 5}]}')) == 5


def _scope(output: str) -> Scope:
    return Scope(steps={"a": StepView(status="completed", output=output)})
