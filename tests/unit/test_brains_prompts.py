"""Prompt texts, and the chained keys of conversations."""

from __future__ import annotations

from agents.conversation import Conversation, ask, key_of_call, request_key
from agents.prompts import LONGEST_EVIDENCE, drone_prompt, drone_system, planner_prompt, review_prompt
from agents.run_state import Task
from hive_bus.codec import decode, encode
from hive_bus.events.model import ModelRequested

TASK = Task(id="fix", index=0, spec={"prompt": "Mend it."})


def test_a_first_try_is_asked_nothing_but_its_step() -> None:
    """No word is added."""
    assert drone_prompt(TASK, "Mend it.") == "Mend it."


def test_a_later_try_is_told_what_was_said_and_where_its_changes_are() -> None:
    """In the workspace, or as the diff they were."""
    said = Task(id="fix", index=0, spec={}, try_number=2, comments=("Shorter.",), base="c1")
    assert "build on them" in drone_prompt(said, "Mend it.")
    assert "- Shorter." in drone_prompt(said, "Mend it.")
    lost = Task(id="fix", index=0, spec={}, try_number=2, comments=("Conflict.",), diff="+ mine")
    assert "+ mine" in drone_prompt(lost, "Mend it.")


def test_a_drone_knows_its_goal_and_its_workspace() -> None:
    """Where it has them."""
    assert "goal: peace" in drone_system("peace", in_workspace=True)
    assert "workspace" not in drone_system("", in_workspace=False).lower()


def test_the_planner_is_told_what_kind_of_workspace_there_is() -> None:
    """A directory without git is worked in differently."""
    assert "git worktrees" in planner_prompt("peace", workspace={"path": "w", "base": "c0"}, tools=())
    assert "without git" in planner_prompt("peace", workspace={"path": "w"}, tools=())
    assert "workspace" not in planner_prompt("peace", workspace={}, tools=()).lower()


def test_long_evidence_is_shortened_in_the_middle() -> None:
    """Its beginning and its end are kept, and how much is missing."""
    text = "a" * LONGEST_EVIDENCE + "b" * LONGEST_EVIDENCE
    prompt = review_prompt(instructions="x", output="", evidence={"diff": text})
    assert len(prompt) < LONGEST_EVIDENCE + 500
    assert "characters left out" in prompt
    assert "(nothing)" in prompt


def test_no_changes_are_said_to_be_none() -> None:
    """A reviewer must not think that the diff was forgotten."""
    assert "(nothing was changed)" in review_prompt(instructions="x", output="y", evidence={"diff": ""})


def test_a_key_is_the_same_when_the_call_was_stored_and_read() -> None:
    """The hand computes it again and refuses another."""
    talk = Conversation(name="drone", role="drone", model="m")
    first = ask(talk, "hello", system="be good", tools=({"name": "t", "input_schema": {"type": "object"}},))
    stored = decode(ModelRequested.TOPIC, 1, encode(first).decode())
    assert isinstance(stored, ModelRequested)
    assert request_key(stored) == first.effect_key


def test_keys_chain() -> None:
    """The same words after another beginning are another call."""
    talk = Conversation(name="drone", role="drone", model="m", turn=1, key="a")
    other = Conversation(name="drone", role="drone", model="m", turn=1, key="b")
    assert ask(talk, "x").effect_key == ask(talk, "x").effect_key != ask(other, "x").effect_key


def test_every_json_value_has_a_key() -> None:
    """Also those for which the canonical form has no room."""
    assert key_of_call("tool", "t", {"n": 2**62}) != key_of_call("tool", "t", {"n": 2**62 + 1})
