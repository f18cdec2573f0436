"""The scripted model: stateless answers from a file, and errors that say what to mend."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents.model import ModelFailure, ModelReply, ModelRequest
from agents.models import open_model
from agents.models.script import parse_script
from agents.models.scripted import ScriptedModel
from hive_errors import ModelSettingMissing, ScriptInvalid, UnknownModel

SCRIPT = """
prices: {input: 4.00, output: 8}
planner:
  - json: {steps: [{id: fix, prompt: "Mend it"}]}
drone:
  fix:
    - text: I look at it.
      tools:
        - {name: read, input: {path: calc.py}}
        - {name: edit, input: {path: calc.py, old: "-", new: "+"}}
    - {text: done, repeat: true}
  fix.2:
    - {fail: {kind: overloaded_error, times: 2, retry_after: 1.5}, text: at last}
  broken:
    - {fail: {kind: invalid_request_error, retryable: false, reason: no such model}}
  slow:
    - {delay: 2.5, text: ready}
reviewer:
  fix:
    - json: {verdict: changes_requested}
    - json: {verdict: approved}
  "*":
    - {json: {verdict: approved}, repeat: true}
"""


def ask(role: str = "drone", task: str | None = "fix", **fields: Any) -> ModelRequest:
    """A request by ``role`` about ``task``."""
    return ModelRequest(model="scripted", messages=({"role": "user", "content": "go"},), role=role, task=task, **fields)


async def answer(request: ModelRequest) -> ModelReply:
    """The reply of the script to ``request``."""
    reply = await ScriptedModel(parse_script(SCRIPT)).respond(request)
    assert isinstance(reply, ModelReply), reply
    return reply


async def failure(request: ModelRequest) -> ModelFailure:
    """The failure of the script for ``request``."""
    outcome = await ScriptedModel(parse_script(SCRIPT)).respond(request)
    assert isinstance(outcome, ModelFailure), outcome
    return outcome


async def test_an_answer_becomes_content_blocks() -> None:
    """Text and tools of an answer are Messages-API blocks, with ids that follow from the place in the script."""
    reply = await answer(ask())
    assert reply.message == {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look at it."},
            {"type": "tool_use", "id": "toolu_drone_fix_1_1_0", "name": "read", "input": {"path": "calc.py"}},
            {
                "type": "tool_use",
                "id": "toolu_drone_fix_1_1_1",
                "name": "edit",
                "input": {"path": "calc.py", "old": "-", "new": "+"},
            },
        ],
    }
    assert (reply.stop_reason, reply.text, len(reply.tool_uses)) == ("tool_use", "I look at it.", 2)


async def test_an_answer_without_tools_ends_the_turn() -> None:
    """Text alone ends the turn."""
    reply = await answer(ask(turn=2))
    assert (reply.stop_reason, reply.text, reply.tool_uses) == ("end_turn", "done", ())


async def test_json_is_said_as_compact_json() -> None:
    """A json answer is a text block with the JSON of the value."""
    assert (await answer(ask("planner", None))).text == '{"steps":[{"id":"fix","prompt":"Mend it"}]}'


async def test_repeat_answers_every_later_turn() -> None:
    """Only an answer marked repeat answers later turns."""
    assert (await answer(ask(turn=40))).text == "done"
    assert (await failure(ask("reviewer", "fix", turn=3))).kind == "missing_answer"


async def test_the_wildcard_answers_for_unnamed_tasks() -> None:
    """A task without answers of its own takes those of "*"; a named one never falls through."""
    assert (await answer(ask("reviewer", "other"))).text == '{"verdict":"approved"}'
    assert (await answer(ask("reviewer", "fix"))).text == '{"verdict":"changes_requested"}'


async def test_a_planned_fault_fails_the_first_attempts_only() -> None:
    """A fault follows the attempt's number, so a restart in between changes nothing."""
    for attempt in (1, 2):
        outcome = await failure(ask(try_number=2, attempt=attempt))
        assert (outcome.kind, outcome.retryable, outcome.retry_after) == ("overloaded_error", True, 1.5)
    assert (await answer(ask(try_number=2, attempt=3))).text == "at last"


async def test_a_fault_without_times_fails_always() -> None:
    """Without times, every attempt fails with the reason of the script."""
    outcome = await failure(ask(task="broken", attempt=9))
    assert (outcome.kind, outcome.retryable, outcome.reason) == ("invalid_request_error", False, "no such model")


async def test_a_missing_answer_prints_its_key_and_what_to_add() -> None:
    """A missing answer names role, task, try and turn, and the YAML to add."""
    outcome = await failure(ask("reviewer", "fix", turn=3))
    assert not outcome.retryable
    assert outcome.reason == (
        "<script> has no answer for role reviewer, task 'fix', try 1, turn 3; add it:\n"
        'reviewer:\n  "fix":\n    # after the 2 answers that are there\n    - text: "..."'
    )


async def test_order_does_not_matter() -> None:
    """Asking in any order, twice or side by side gives the same answers."""
    model = ScriptedModel(parse_script(SCRIPT))
    requests = [ask(), ask(turn=2), ask("reviewer"), ask("reviewer", turn=2), ask("planner", None)]
    forward = [await model.respond(request) for request in requests]
    backward = [await model.respond(request) for request in reversed(requests)]
    assert forward == backward[::-1] == await asyncio.gather(*map(model.respond, requests))


async def test_usage_and_cost_are_counted_from_the_characters() -> None:
    """Four characters are a token; the prices of the file are dollars per million tokens."""
    reply = await answer(ask(turn=2))
    sent, said = '["", {"content": "go", "role": "user"}]', '[{"text": "done", "type": "text"}]'
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (-(-len(sent) // 4), -(-len(said) // 4))
    assert reply.charge is not None
    assert (reply.charge.amount, reply.charge.price_table) == ("0.000112", "scripted")


async def test_text_is_streamed_and_delays_are_kept() -> None:
    """The text goes to on_text; a delay is waited for by the sleep that was given."""
    slept: list[float] = []
    heard: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await ScriptedModel(parse_script(SCRIPT), sleep).respond(ask(task="slow"), on_text=heard.append)
    assert (slept, heard) == ([2.5], ["ready"])


@pytest.mark.parametrize("text", ["one two\\n\\nthree ", "  ", "", "one"])
async def test_a_pace_is_words_in_a_second(text: str) -> None:
    """Word by word, each after its time; joined they are the reply."""
    slept: list[float] = []
    heard: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    script = f'drone:\n  fix:\n    - {{text: "{text}", pace: 4}}'
    reply = await ScriptedModel(parse_script(script), sleep).respond(ask(task="fix"), on_text=heard.append)
    assert isinstance(reply, ModelReply)
    assert "".join(heard) == reply.text
    assert slept == [0.25] * len(heard)


@pytest.mark.parametrize(
    ("text", "line", "field", "reason"),
    [
        ("drone:\n  fix:\n    - txet: hello", 3, "drone.fix[0].txet", "unknown field"),
        ("drone:\n  fix:\n    - {}", 3, "drone.fix[0]", "says nothing: give text, json, tools or fail"),
        ("drone:\n  fix:\n    - {text: a, json: 1}", 3, "drone.fix[0]", "has both text and json: keep one"),
        ("drone:\n  fix:\n    - tools:\n      - {name: ''}", 4, "drone.fix[0].tools[0].name", "at least 1 character"),
        ("drone:\n  - {text: a, repeat: true}\n  - {text: b}", 2, "drone", "answer 1 repeats"),
        ("drone:\n  fix:\n    - fail: {times: 1}", 3, "drone.fix[0]", "says nothing after 1 failures"),
        ("drone:\n  fix:\n    - {fail: {}, text: a}", 3, "drone.fix[0]", "fails every time"),
        ("drone:\n  - text: a\n  - {text: a, delay: -1}", 3, "drone[1].delay", "greater than or equal to 0"),
        ("drone:\n  fix: hello", 2, "drone.fix", "valid tuple"),
        ("prices:\n  input: much", 2, "prices.input", "valid decimal"),
        ("- 1", 1, "", "must be a mapping of roles"),
        ("drone: [a\nb: c", 2, "", "is not YAML"),
        ("drone: []\ndrone: []", 2, "", "there twice"),
    ],
)
def test_a_malformed_script_says_where_and_why(text: str, line: int, field: str, reason: str) -> None:
    """Every mistake is named with its file, line, field and reason."""
    with pytest.raises(ScriptInvalid) as caught:
        parse_script(text, file="answers.yaml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.field) == ("answers.yaml", line, field)
    assert reason in problem.reason


def test_all_mistakes_are_listed_with_suggestions() -> None:
    """Nobody mends a file one run at a time; the nearest field is suggested."""
    with pytest.raises(ScriptInvalid) as caught:
        parse_script(
            "drone:\n  - tool: []\n  - {tools: [{name: a, inputs: {}}]}\n  - {text: a, fail: {time: 1}}", file="a.yaml"
        )
    assert {problem.field: problem.suggestion for problem in caught.value.problems} == {
        "drone[0].tool": "did you mean tools?",
        "drone[1].tools[0].inputs": "did you mean input?",
        "drone[2].fail.time": "did you mean times?",
    }
    assert str(caught.value).startswith("a.yaml:2:")
    assert "a.yaml" in caught.value.advice


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A script that is not there is an error with its path."""
    with pytest.raises(ScriptInvalid, match=r"nowhere\.yaml"):
        open_model(f"scripted:{tmp_path / 'nowhere.yaml'}")


async def test_open_model_reads_the_script(tmp_path: Path) -> None:
    """Both spellings open the same script."""
    path = tmp_path / "answers.yaml"
    path.write_text(SCRIPT, encoding="utf-8")
    for model in (open_model("scripted", script=path), open_model(f"scripted:{path}")):
        reply = await model.respond(ask(turn=2))
        assert isinstance(reply, ModelReply)
        await model.aclose()


def test_scripted_needs_a_file() -> None:
    """Without a file the error says how to name one."""
    with pytest.raises(ModelSettingMissing, match="a script file") as caught:
        open_model("scripted")
    assert "scripted:answers.yaml" in caught.value.advice


def test_an_unknown_model_gets_a_suggestion() -> None:
    """A misspelt name is answered with the nearest known one."""
    with pytest.raises(UnknownModel, match="'cluade-sonnet-5-5'") as caught:
        open_model("cluade-sonnet-5-5")
    assert caught.value.advice.startswith("did you mean 'claude-sonnet-5-5'?")


def test_claude_needs_a_key() -> None:
    """Without a key the error names the variable."""
    with pytest.raises(ModelSettingMissing, match="ANTHROPIC_API_KEY") as caught:
        open_model("claude-sonnet-5-5", environ={})
    assert "export ANTHROPIC_API_KEY" in caught.value.advice
