"""Placeholders: what they put in, what they refuse, and that no value ever becomes shell code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.workflows.references import Scope, StepView
from agents.workflows.templates import (
    LONGEST_COMMAND,
    parse_command,
    parse_template,
    render_command,
    render_text,
    render_value,
)
from agents.workflows.workflow import Step
from hive_errors import TemplateError

SCOPE = Scope(
    run_id="7f3k9x2m4p",
    goal="ship it",
    name="ci",
    steps={
        "test": StepView(status="failed", output="it's 2 failed", exit_code=1),
        "data": StepView(
            status="completed", output='{"a": {"b": ["x", {"c d": 5}]}, "t": true, "z": null, "é": "ü"}', exit_code=0
        ),
        "drone": StepView(status="completed", output="done"),
        "docs": StepView(status="skipped"),
    },
    env={"NAME": "a b"},
)
SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ steps.test.output }}", "it's 2 failed"),
        ("{{steps.test.output}}!", "it's 2 failed!"),
        ("{{ steps.test.exit_code }}/{{ steps.test.status }}", "1/failed"),
        ("{{ steps['test'].exit_code }}", "1"),
        ("{{ steps.data.json.a.b[0] }}", "x"),
        ("{{ steps.data.json.a.b[-1]['c d'] }}", "5"),
        ("{{ steps.data.json.a }}", '{"b":["x",{"c d":5}]}'),
        ("{{ steps.data.json.t }}", "true"),
        ("{{ steps.data.json.é }}", "ü"),
        ("{{ run.id }} {{ run.goal }} {{ run.name }}", "7f3k9x2m4p ship it ci"),
        ("{{ env.NAME }}", "a b"),
        ("{{{{ not a value }}", "{{ not a value }}"),
        ("{{{{{{ run.id }}", "{{7f3k9x2m4p"),
        ("a }} b { c } d", "a }} b { c } d"),
        ("{{\n run.id\n}}", "7f3k9x2m4p"),
    ],
)
def test_what_is_put_in(text: str, rendered: str) -> None:
    """Each kind of placeholder becomes its value as it is."""
    assert render_text(text, SCOPE) == rendered


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("a {{ steps.test.output", 3, "is not closed by }}"),
        ("{{ }}", 1, "a value is expected"),
        ("{{ steps.test.output | upper }}", 1, "is not closed by }}"),
        ("{{ step.test.output }}", 1, "'step' is not a value"),
        ("{{ steps.test.outptu }}", 1, "a step has no 'outptu'"),
        ("{{ run.owner }}", 1, "a run has no 'owner'"),
        ("{{ run.id.x }}", 1, "run.id is text and has nothing below it"),
        ("{{ env[0] }}", 1, "env needs a name behind it"),
        ("x {{.Names}}", 3, "a value is expected"),
        ("{{{ run.id }}}", 1, "a value is expected"),
    ],
)
def test_what_is_no_placeholder(text: str, column: int, reason: str) -> None:
    """A placeholder that can never work is refused when it is read, with its column and a way out."""
    with pytest.raises(TemplateError) as caught:
        parse_template(text)
    assert (caught.value.column, caught.value.reason) == (column, reason)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ steps.nobody.output }}", "there is no step 'nobody' to read from"),
        ("{{ steps.test.json.a }}", "the output of step 'test' is not JSON"),
        ("{{ steps.data.json.z }}", "the JSON of step 'data' has null or nothing there"),
        ("{{ steps.data.json.a.q }}", "the JSON of step 'data' has null or nothing there"),
        ("{{ steps.drone.exit_code }}", "step 'drone' ran no command and has no exit code"),
        ("{{ steps.docs.exit_code }}", "step 'docs' is skipped and left nothing"),
        ("{{ env.OTHER }}", "the step sets no variable 'OTHER'"),
    ],
)
def test_a_value_that_is_not_there_is_an_error(text: str, reason: str) -> None:
    """Nothing is ever put in as an empty text by mistake."""
    with pytest.raises(TemplateError) as caught:
        render_text(text, SCOPE)
    assert caught.value.reason.startswith(reason)


def test_a_run_without_a_goal_has_none_to_put_in() -> None:
    """A placeholder for the goal of a run that was given none says so."""
    with pytest.raises(TemplateError, match="the run has no goal"):
        render_text("{{ run.goal }}", Scope(run_id="x"))
    with pytest.raises(TemplateError, match="the run has no goal"):
        render_text("{{ run.goal }}", Scope(run_id="x", goal=""))


def test_arguments_keep_their_types() -> None:
    """In `with`, a text that is one placeholder becomes the value itself, anything longer a text."""
    value: Any = {
        "n": "{{ steps.test.exit_code }}",
        "text": "n={{ steps.test.exit_code }}",
        "deep": ["{{ steps.data.json.a.b }}", 3, None, True],
    }
    assert render_value(value, SCOPE) == {"n": 1, "text": "n=1", "deep": [["x", {"c d": 5}], 3, None, True]}


def test_a_step_is_rendered_whole() -> None:
    """Command, prompt, arguments, variables and question each get their values; the command's are quoted."""
    step = Step.model_validate(
        {
            "id": "a",
            "run": "echo {{ steps.test.output }} {{ env.GREETING }}",
            "env": {"GREETING": "hi {{ run.name }}"},
            "approval": "Go on after {{ steps.test.output }}?",
        }
    )
    rendered = step.rendered(SCOPE)
    assert rendered.run == "echo 'it'\"'\"'s 2 failed' 'hi ci'"
    assert rendered.env == {"GREETING": "hi ci"}
    assert rendered.approval == "Go on after it's 2 failed?"
    tool = Step.model_validate({"id": "b", "tool": "noop", "with": {"x": "{{ steps.test.exit_code }}"}})
    assert tool.rendered(SCOPE).arguments == {"x": 1}
    asked = Step.model_validate({"id": "c", "prompt": "Mend {{ steps.test.output }}"})
    assert asked.rendered(SCOPE).prompt == "Mend it's 2 failed"


@pytest.mark.parametrize(
    ("command", "reason", "suggestion"),
    [
        ('echo "{{ run.id }}"', "stands inside double quotes", "take the quotes away"),
        ("echo '{{ run.id }}'", "stands inside single quotes", "take the quotes away"),
        ("echo `cat {{ run.id }}`", "stands inside backticks", "set it under the step's env"),
        ("echo $((1 + {{ run.id }}))", "stands inside (( ))", "set it under the step's env"),
        ('echo "$((1 + {{ run.id }}))"', "stands inside (( ))", "set it under the step's env"),
        ("(( {{ run.id }} > 1 ))", "stands inside (( ))", "set it under the step's env"),
        ("true # {{ run.id }}", "stands in a comment", "set it under the step's env"),
        ("cat <<END\n{{ run.id }}\nEND\n", "stands in a here-document", "set it under the step's env"),
        ("cat <<-'END'\n\ta\n\tEND\ncat <<A <<B\nA\n{{ run.id }}\n", "stands in a here-document", "set it"),
        ("cat <<{{ run.id }}\n", "stands behind a here-document", "set it under the step's env"),
        ("echo ${{ run.id }}", "stands behind a dollar sign", "write {{ ... }} without the $"),
        ("echo \\{{ run.id }}", "stands behind a backslash", "take the backslash away"),
        ("echo $'a' {{ run.id }}", "stands behind a $'...' text", "set it under the step's env"),
        ("echo ${x:-{{ run.id }}}", "stands inside ${ }", "set it under the step's env"),
        ('echo "${x:-\'}" {{ run.id }} "\'}"', 'stands behind a quote inside "${ }"', "set it under the step's env"),
        ('echo "it\'s" "{{ run.id }}"', "stands inside double quotes", "take the quotes away"),
        ('echo "$(echo "{{ run.id }}")"', "stands inside double quotes", "take the quotes away"),
    ],
)
def test_where_no_quoting_helps_the_value_is_refused(command: str, reason: str, suggestion: str) -> None:
    """Inside the author's own quotes and the like a quoted value could end the quote or run: refused when read."""
    with pytest.raises(TemplateError) as caught:
        parse_command(command)
    assert caught.value.reason.startswith(reason)
    assert caught.value.suggestion.startswith(suggestion)


# Places where the shell reads words, each a command that prints the value and nothing else.
PLACES = [
    "printf %s {{ steps.v.output }}",
    "printf %s ''{{ steps.v.output }}",
    "# it's a comment with one quote\nprintf %s {{ steps.v.output }}",
    "printf %s\\\n {{ steps.v.output }}",
    "printf %s '' && printf %s {{ steps.v.output }} # done",
    "(printf %s {{ steps.v.output }})",
    'x={{ steps.v.output }}; printf %s "$x"',
    "cat <<'END' >/dev/null\nit's\nEND\nprintf %s {{ steps.v.output }}",
    'test "${x:-its}" && printf %s {{ steps.v.output }}',
    "n=$((1 + (2))); printf %s {{ steps.v.output }}",
    "case a in b) false ;; *) printf %s {{ steps.v.output }} ;; esac",
]
HOSTILE = [
    "",
    "plain",
    "two words\nand a line",
    "'; touch owned; '",
    '"; touch owned; "',
    "$(touch owned)",
    "`touch owned`",
    "\\",
    "\\'; touch owned; '",
    "-n",
    "*",
    "~",
    "a=b",
    "END\ntouch owned\n",
    "ünïcödé ✓",
    "!!",
    "#x",
    "\t",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("place", PLACES)
def test_a_quoted_value_is_one_word_in_a_real_shell(place: str, shell: str, tmp_path: Path) -> None:
    """Every hostile value comes out of a real shell exactly as it went in, and none of it runs."""
    for value in HOSTILE:
        assert _printed(place, value, shell, tmp_path) == value
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80))
def test_any_value_is_one_word(value: str, tmp_path: Path) -> None:
    """Whatever text a step printed, the shell hands it on unchanged."""
    assert _printed(PLACES[0], value, "sh", tmp_path) == value


_FRAGMENTS = st.sampled_from(
    [
        "echo ",
        "'a'",
        '"b"',
        "$(",
        ")",
        "# c",
        "\n",
        "'",
        '"',
        "\\",
        "`",
        "$((",
        "((",
        "<<E\n",
        "\nE\n",
        "(",
        "; ",
        "${x:-",
        "}",
        "$'",
        "case x in x) ",
        "esac",
        " ;; ",
        "x=",
        "<<<",
        "<<-E\n",
        "\tE\n",
        ">/dev/null ",
        "a[",
        "]",
        "if true; then ",
    ]
)
_ATTACKS = st.sampled_from([value for value in HOSTILE if "touch" in value])


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(before=st.lists(_FRAGMENTS, max_size=6), after=st.lists(_FRAGMENTS, max_size=3), value=_ATTACKS)
def test_no_accepted_place_lets_a_value_run(before: list[str], after: list[str], value: str, tmp_path: Path) -> None:
    """However oddly a command is put together: if the value may stand there, real shells do not run it."""
    command = "".join([*before, "{{ steps.v.output }}", *after])
    scope = Scope(steps={"v": StepView(status="completed", output=value)})
    try:
        rendered = render_command(command, scope)
    except TemplateError:
        return
    for shell in SHELLS:
        subprocess.run(
            [shell, "-c", rendered], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    assert not (tmp_path / "owned").exists()


def test_what_no_command_can_carry_is_refused() -> None:
    """A NUL character, and a command longer than the system takes, fail as the step's reason and not in the system."""
    scope = Scope(steps={"v": StepView(status="completed", output="a\0b")})
    with pytest.raises(TemplateError, match="NUL"):
        render_command(PLACES[0], scope)
    scope = Scope(steps={"v": StepView(status="completed", output="x" * LONGEST_COMMAND)})
    with pytest.raises(TemplateError, match="longer than 131071 bytes"):
        render_command(PLACES[0], scope)


def test_the_longest_command_really_runs(tmp_path: Path) -> None:
    """The limit is the system's: one byte less still starts."""
    frame = len("printf %s ''")
    value = "x" * (LONGEST_COMMAND - frame)
    assert _printed(PLACES[0], value, "sh", tmp_path) == value


@given(st.text(st.sampled_from("{} runid.steps[]'\"0a"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader do anything but return or raise its own error, and a text without braces stays."""
    try:
        template = parse_template(text)
    except TemplateError:
        return
    if "{{" not in text:
        assert template.parts in ((text,), ())


def _printed(command: str, value: str, shell: str, directory: Path) -> str:
    scope = Scope(steps={"v": StepView(status="completed", output=value)})
    done = subprocess.run(
        [shell, "-c", render_command(command, scope)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()
