"""Workflow files: what is read, and that every problem is named at once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.workflows.file import load_workflow, parse_mapping, parse_workflow
from agents.workflows.workflow import Step, Workflow
from hive_errors import WorkflowFileError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

# The workflow of the documentation.
CI = """\
name: ci
defaults: {timeout: 10m}
steps:
  - {id: lint,  run: ruff check .}
  - {id: test,  run: pytest -q, retries: 1}
  - {id: fix,   needs: [test], when: "failed('test')", prompt: "Make these pass: {{ steps.test.output }}", review: true}
  - {id: build, needs: [lint, test], run: python -m build}
  - {id: ship,  needs: [build], run: ./release.sh, approval: true, effect: unsafe}
"""


def problems(text: str, **checks: list[str]) -> list[str]:
    """Return the problems of a file as they are printed."""
    with pytest.raises(WorkflowFileError) as caught:
        parse_workflow(text, file="f.yaml", **checks)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def step(text: str) -> str:
    """Return a file whose one step is `text` in line 3, from column 5."""
    return f"name: x\nsteps:\n  - {text}\n"


def only(text: str) -> Step:
    """Return the one step of a file."""
    return parse_workflow(step(text)).steps[0]


def test_the_documented_workflow_is_read() -> None:
    """Kinds, needs, defaults and the spellings of the fields become what the queen works with."""
    workflow = parse_workflow(CI)
    assert [(found.id, found.kind, found.timeout) for found in workflow.steps] == [
        ("lint", "run", 600.0),
        ("test", "run", 600.0),
        ("fix", "prompt", 600.0),
        ("build", "run", 600.0),
        ("ship", "run", 600.0),
    ]
    assert workflow.max_parallel == 8
    assert workflow.step("test").retries == 1
    assert (workflow.step("fix").review, workflow.step("fix").when) == (1, "failed('test')")
    assert (workflow.step("ship").approval, workflow.step("ship").effect) == (True, "unsafe")
    assert workflow.ancestors("ship") == {"build", "lint", "test"}
    with pytest.raises(KeyError):
        workflow.step("nobody")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_good_workflow(path: Path) -> None:
    """The files in `examples/` load, and say in a comment how to run them."""
    assert load_workflow(path).steps
    assert f"hive run examples/{path.name}" in path.read_text()


def test_defaults_are_what_a_step_does_not_say() -> None:
    """A step's own value wins, also one that equals the usual default; variables are merged."""
    workflow = parse_workflow(
        """\
name: x
defaults: {timeout: 1m, retries: 2, backoff: 5s, priority: high, model: m, tools: [read], env: {A: 1, B: 2}, review: 2}
steps:
  - {id: a, run: x}
  - {id: b, prompt: x, retries: 0, timeout: 1h30m, priority: 5, env: {B: 3}, review: false, tools: []}
"""
    )
    a, b = workflow.steps
    assert (a.timeout, a.retries, a.backoff, a.priority, a.model, a.tools) == (60.0, 2, 5.0, 3, None, None)
    assert (a.env, a.review) == ({"A": "1", "B": "2"}, 2)
    assert (b.timeout, b.retries, b.backoff, b.priority, b.model, b.tools) == (5400.0, 0, 5.0, 5, "m", ())
    assert (b.env, b.review) == ({"A": "1", "B": "3"}, 0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("90", 90.0),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    """A duration is numbers with units, or a number of seconds."""
    assert only(f"{{id: a, run: x, timeout: {written}}}").timeout == seconds


def test_text_is_taken_as_written() -> None:
    """Where text is wanted, what looks like a number or a truth value stays what the author wrote."""
    found = only("{id: 1, run: true, when: true, needs: [], env: {PORT: 8080, VERSION: 1.10, ON: true}, name: 007}")
    assert (found.id, found.run, found.when, found.name) == ("1", "true", "true", "007")
    assert found.env == {"PORT": "8080", "VERSION": "1.10", "ON": "true"}
    assert only("{id: a, tool: noop, with: {n: 1.10, on: true, list: [1, x]}}").arguments == {
        "n": 1.1,
        "on": True,
        "list": [1, "x"],
    }


def test_short_forms() -> None:
    """One need or tool needs no list; a priority has a name; an approval may be a question."""
    workflow = parse_workflow(
        "name: x\nsteps:\n- {id: a, run: x, priority: background}\n"
        "- {id: b, prompt: x, needs: a, tools: read, approval: Sure?, review: 3}\n"
    )
    assert workflow.steps[0].priority == 9
    assert (workflow.steps[1].needs, workflow.steps[1].tools) == (("a",), ("read",))
    assert (workflow.steps[1].approval, workflow.steps[1].review) == ("Sure?", 3)


BAD_FIELDS = [
    ("{id: a, run: x, tiemout: 10m}", 21, ".tiemout = 10m: unknown field; did you mean timeout?"),
    ("{id: a, script: x}", 13, ".script = x: unknown field; did you mean run?"),
    ("{id: a, run: x, depends_on: [b]}", 21, '.depends_on = ["b"]: unknown field; did you mean needs?'),
    ("{id: a, run: x, if: y}", 21, ".if = y: unknown field; did you mean when?"),
    ("{id: a, run: x, prompt: y}", 5, ": a step is one of run, prompt and tool, not run and prompt"),
    ("{id: a}", 5, ": a step needs one of run, prompt and tool"),
    ("{run: x}", 5, ".id: is missing; add `id: ...`"),
    ("{id: a b, run: x}", 10, ".id = a b: must be 1 to 64 letters, digits, _ or -; write a-b"),
    ("{id: a, run: }", 5, ": a step needs one of run, prompt and tool"),
    ("{id: a, run: ''}", 18, ".run: must not be empty"),
    ('{id: a, run: "x\\0y"}', 18, ".run = x\0y: must not hold a NUL character"),
    ("{id: a, run: [x]}", 18, '.run = ["x"]: must be text; put it in quotes'),
    ("{id: a, run: x, retries: many}", 30, ".retries = many: must be a whole number"),
    ("{id: a, run: x, retries: 1.5}", 30, ".retries = 1.5: must be a whole number"),
    ("{id: a, run: x, retries: -1}", 30, ".retries = -1: must be at least 0"),
    ("{id: a, run: x, retries: 101}", 30, ".retries = 101: must be at most 100"),
    ("{id: a, run: x, timeout: soon}", 30, ".timeout = soon: must be a duration such as 500ms, 10s, 10m or 1h30m"),
    ("{id: a, run: x, timeout: 0}", 30, ".timeout = 0: must be longer than nothing"),
    ("{id: a, run: x, timeout: true}", 30, ".timeout = true: must be a duration such as 500ms, 10s, 10m or 1h30m"),
    ("{id: a, run: x, timeout: 31d}", 30, ".timeout = 31d: must be between 0 and 30 days"),
    ("{id: a, run: x, timeout: .nan}", 30, ".timeout = .nan: must be a duration such as 500ms, 10s, 10m or 1h30m"),
    ("{id: a, run: x, backoff: -3}", 30, ".backoff = -3: must be between 0 and 30 days"),
    ("{id: a, run: x, priority: urgent}", 31, ".priority = urgent: must be 1 to 9, or critical, high, normal, low,"),
    ("{id: a, run: x, priority: 10}", 31, ".priority = 10: must be 1 to 9, or critical, high, normal, low, background"),
    ("{id: a, run: x, review: 10}", 29, ".review = 10: must be true, false, or the number of reviewers (0 to 9)"),
    ("{id: a, run: x, approval: 3}", 31, ".approval = 3: must be true, false, or the question to ask"),
    (
        "{id: a, run: x, effect: unsave}",
        29,
        ".effect = unsave: must be one of pure, idempotent, reconcilable, unsafe; did",
    ),
    ("{id: a, run: x, env: [A]}", 26, '.env = ["A"]: must be a mapping of fields to values'),
    ("{id: a, run: x, env: {1A: x}}", 31, '.env["1A"] = 1A: must be a variable\'s name: letters, digits and _, not'),
    ("{id: a, run: x, env: {A: }}", 29, ".env.A = null: has no value"),
    ("{id: a, run: x, with: {n: 1}}", 5, ": `with` holds the arguments of a tool, and this step has none"),
    ("{id: a, run: x, model: m}", 5, ": `model` is for prompt steps"),
    ("{id: a, run: x, needs: {b: c}}", 28, '.needs = {"b": "c"}: must be a list'),
    ("{id: a, run: x, needs: [null]}", 29, ".needs[0] = null: has no value"),
    ("just text", 5, " = just text: must be a mapping of fields to values"),
    ("", 4, " = null: must be a mapping of fields to values"),
    ("{id: a, run: x, needs: [a]}", 29, ".needs[0] = a: a step cannot need itself; take one of these needs away"),
    ("{id: a, run: x, needs: [b]}", 29, ".needs[0] = b: no step has this id; the steps are a"),
    ("{id: a, run: x, when: failed(}", 27, ".when = failed(: a value is expected at character 8"),
    ("{id: a, run: x, when: failed('b')}", 27, ".when = failed('b'): no step has the id 'b'; the steps are a"),
    ("{id: a, run: x, when: failed('a')}", 27, ".when = failed('a'): a step cannot read its own result"),
    (
        "{id: a, run: 'echo {{ steps.b }}'}",
        18,
        ".run = {{ steps.b }}: steps.b needs a field behind it; a step has output,",
    ),
    ("{id: a, run: 'x \"{{ run.id }}\"'}", 18, ".run = {{ run.id }}: stands inside double quotes, where the value"),
    (
        "{id: a, prompt: '{{ env.B }}'}",
        21,
        ".prompt = {{ env.B }}: the step sets no variable 'B'; add it to the env of a",
    ),
    (
        "{id: a, run: x, env: {A: '{{ env.B }}', B: c}}",
        30,
        ".env.A = {{ env.B }}: a variable cannot be made of another one",
    ),
    (
        "{id: a, tool: t, with: {l: [{k: '{{ x }}'}]}}",
        37,
        ".with.l[0].k = {{ x }}: 'x' is not a value; write steps.ID.output",
    ),
    (
        "{id: a, run: x, approval: '{{ step.a }}'}",
        31,
        ".approval = {{ step.a }}: 'step' is not a value; did you mean steps?",
    ),
]


@pytest.mark.parametrize(("text", "column", "message"), BAD_FIELDS, ids=[text for text, _, _ in BAD_FIELDS])
def test_a_bad_field_is_named(text: str, column: int, message: str) -> None:
    """Each bad value gives its file, line, column, field, value, reason and suggestion."""
    assert any(line.startswith(f"f.yaml:3:{column} steps[0]{message}") for line in problems(step(text))), problems(
        step(text)
    )


BAD_FILES = [
    ("", "f.yaml:1:1 the file is empty; begin with `name:` and `steps:`"),
    ("# only a comment\n", "f.yaml:1:1 the file is empty; begin with `name:` and `steps:`"),
    ("just text", "f.yaml:1:1 just text: must be a mapping of fields to values"),
    ("- a\n", 'f.yaml:1:1 ["a"]: must be a mapping of fields to values'),
    ("steps: []\nname: x\n", "f.yaml:1:8 steps = []: must not be empty"),
    ("name: x\n", "f.yaml:1:1 steps: is missing; add `steps:` with at least one step"),
    ("name: x\nsteps: {a: 1}\n", 'f.yaml:2:8 steps = {"a": 1}: must be a list; begin each item with `- `'),
    ("name: x\njobs: []\n", "f.yaml:2:1 jobs = []: unknown field; did you mean steps?"),
    (
        "name: x\ndefaults: {timout: 1}\nsteps: [{id: a, run: b}]",
        "f.yaml:2:12 defaults.timout = 1: unknown field; did you",
    ),
    ("name: x\nmax_parallel: 0\nsteps: [{id: a, run: b}]", "f.yaml:2:15 max_parallel = 0: must be at least 1"),
    (
        f"name: {'x' * 201}\nsteps: [{{id: a, run: b}}]",
        f"f.yaml:1:7 name = {'x' * 57}...: must be at most 200 characters",
    ),
    ("name: x\nname: y\n", "f.yaml:2:1 the key 'name' is there twice (first in line 1); keep one of them"),
    ("name: !!str x\n", "f.yaml:1:7 tags are not allowed; leave out tag:yaml.org,2002:str"),
    ("name: !secret x\n", "f.yaml:1:7 tags are not allowed; leave out !secret"),
    ("name: *x\n", "f.yaml:1:7 nothing above has the anchor &x"),
    ("name: &x [*x]\n", "f.yaml:1:11 nothing above has the anchor &x"),
    ("name: x\n---\nname: y\n", "f.yaml:2:1 a file holds one workflow; put the second document into a file of its own"),
    ("run: {{ steps.a.output }}\n", "f.yaml:1:7 a key must be text; put a text that begins with {{ in quotes"),
    ("? [a]\n: b\n", "f.yaml:1:3 a key must be text; write the key as plain text"),
    ("name: a: b\n", "f.yaml:1:8 is not YAML: mapping values are not allowed here; put the whole text in quotes"),
    ("name: @x\n", "f.yaml:1:7 is not YAML: found character '@' that cannot start any token"),
    ("name: [x\nsteps: y\n", "f.yaml:2:6 is not YAML: expected ',' or ']', but got ':' while parsing a flow sequence"),
    ("name:\n\t- x\n", "f.yaml:2:1 is not YAML: found character '\\t' that cannot start any token"),
    ("name: 'x\n", "f.yaml:2:1 is not YAML: found unexpected end of stream while scanning a quoted scalar"),
    ("name: x\nb: \x01\n", "f.yaml:2:4 holds a character that YAML forbids (code 1)"),
    ("a: " + "[" * 5000 + "]" * 5000, "f.yaml:1:36 nested more than 32 deep"),
    ("a: 123456789012345678901234567890\nb: 9223372036854775808\n", "f.yaml:2:4 a whole number of more than 64 bits"),
    ("a: 1e999\n", "f.yaml:1:4 a number beyond what can be kept; put it in quotes"),
    ("x" * 600_000, "f.yaml:1:1 the file is larger than 512 KiB"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[message[:60] for _, message in BAD_FILES])
def test_a_bad_file_is_refused(text: str, message: str) -> None:
    """What is no workflow file at all says where reading stopped and why."""
    assert any(line.startswith(message) for line in problems(text)), problems(text)


def test_anchors_are_fine_but_no_bomb() -> None:
    """An anchor may be used again; a billion laughs are stopped by what they would hold, not by memory."""
    shared = "name: x\nsteps:\n- {id: a, run: b, env: &env {A: 1}}\n- {id: c, run: d, env: *env}\n"
    assert parse_workflow(shared).steps[1].env == {"A": "1"}
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    assert any("the file holds more than 200000 values" in line for line in problems(bomb))


def test_all_problems_come_at_once() -> None:
    """One reading names everything that is wrong, in the order of the file."""
    text = """\
name: ci
defaults: {timout: 10m}
steps:
  - {id: lint, run: ruff check ., needs: [test]}
  - {id: test, run: pytest, retries: x, tiemout: 10m, needs: [lint]}
  - {id: lint, run: 'true'}
  - {id: fix, needs: [tset], prompt: "{{ steps.test.output }}"}
  - id: ship
    run: >
      echo
      '{{ steps.fix.output }}'
    needs: [fix, fix]
"""
    assert (
        problems(text)
        == """\
f.yaml:2:12 defaults.timout = 10m: unknown field; did you mean timeout?
f.yaml:5:38 steps[1].retries = x: must be a whole number
f.yaml:5:41 steps[1].tiemout = 10m: unknown field; did you mean timeout?
f.yaml:5:63 steps[1].needs[0] = lint: the steps wait for each other: lint needs test needs lint; take one of these needs away
f.yaml:6:10 steps[2].id = lint: is the id of steps[0] already; give it another id
f.yaml:7:23 steps[3].needs[0] = tset: no step has this id; did you mean test?
f.yaml:7:38 steps[3].prompt = {{ steps.test.output }}: step 'test' is not among the needs, so it may not have run yet; add test to the needs of fix
f.yaml:9:10 steps[4].run = {{ steps.fix.output }}: stands inside single quotes, which the value could close; take the quotes away: the value is quoted for the shell already
f.yaml:12:18 steps[4].needs[1] = fix: is needed twice; name it once
""".splitlines()
    )


def test_what_nobody_offers_is_named() -> None:
    """A capability without a worker and a tool that is not registered are errors when the caller knows them."""
    text = "name: x\nsteps:\n- {id: a, prompt: b, capability: pyton, tools: [red, read]}\n- {id: c, tool: nop}\n"
    assert problems(text, capabilities=["python"], tools=["read", "noop"]) == [
        "f.yaml:3:34 steps[0].capability = pyton: no worker has this capability; did you mean python?",
        "f.yaml:3:49 steps[0].tools[0] = red: no tool has this name; did you mean read?",
        "f.yaml:4:17 steps[1].tool = nop: no tool has this name; did you mean noop?",
    ]
    assert problems(text, capabilities=[])[0].endswith("no worker has this capability; there are no capabilities")
    assert parse_workflow(text).steps[1].tool == "nop"


def test_a_plan_is_checked_without_a_file() -> None:
    """A mapping, such as a model's answer, goes through the same checks; its problems have no lines."""
    good = {"name": "p", "steps": [{"id": "a", "run": "x"}, {"id": "b", "prompt": "y", "needs": ["a"]}]}
    assert isinstance(parse_mapping(good), Workflow)
    with pytest.raises(WorkflowFileError) as caught:
        parse_mapping({"name": "p", "steps": [{"id": "a", "run": 3, "needs": ["b", 4]}, 7]})
    assert [str(problem) for problem in caught.value.problems] == [
        "plan: steps[0].run = 3: must be text; put it in quotes",
        "plan: steps[0].needs[1] = 4: must be text; put it in quotes",
        "plan: steps[1] = 7: must be a mapping of fields to values",
        "plan: steps[0].needs[0] = b: no step has this id; the steps are a",
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is no UTF-8 are problems of the file, with its name."""
    for path, reason in [(tmp_path / "no.yaml", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(WorkflowFileError) as caught:
            load_workflow(path)
        assert str(caught.value) == f"{path}: cannot be read: {reason}"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: x\ngoal: caf\xe9\n")
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(latin)
    assert str(caught.value) == f"{latin}:2:10 is not UTF-8 text"
    assert "hive validate" in caught.value.advice


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """What some editors put in front of UTF-8 is no part of the file, and lines may end as on Windows."""
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nsteps:\r\n- {id: a, run: b}\r\n")
    assert load_workflow(str(path)).name == "x"
