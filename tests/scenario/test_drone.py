"""One drone: its turns, its tools, and every way in which it may end."""

from __future__ import annotations

from typing import Any

import pytest

from agents.drone import Drone
from agents.hands.model import build
from hive_bus.effects import EffectClass
from hive_bus.events.drone import (
    DroneBuzzed,
    DroneCompleted,
    DroneFailed,
    DroneHatched,
    DroneInterrupted,
    DroneInterruptRequested,
    DroneMessage,
)
from hive_bus.events.model import ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.tool import ToolCancelled, ToolFailed, ToolRequested, ToolReturned
from tests.support.scenario import Hive

STREAM = "drone/fix.1"
TOOLS: tuple[dict[str, Any], ...] = (
    {"name": "read", "description": "reads", "input_schema": {"type": "object"}, "effect": "pure"},
    {"name": "edit", "description": "edits", "input_schema": {"type": "object"}, "effect": "idempotent"},
    {"name": "mail", "description": "sends", "input_schema": {"type": "object"}},
)


def buzzed(**fields: Any) -> Hive:
    """A drone that was given work."""
    hatched = DroneHatched(drone_id="fix.1", task_id="fix", model="m", system="be good", tools=TOOLS, **fields)
    work = DroneBuzzed(drone_id="fix.1", prompt="Mend it.", workspace={"path": "w", "base": "c0"})
    return Hive(Drone()).given(hatched, work, stream=STREAM)


def says(text: str = "", *uses: dict[str, Any], stop: str = "") -> ModelResponded:
    """A reply of the model."""
    content = [{"type": "text", "text": text}] if text else []
    stop_reason = stop or ("tool_use" if uses else "end_turn")
    return ModelResponded(message={"role": "assistant", "content": [*content, *uses]}, stop_reason=stop_reason)


def use(name: str, number: int = 1, **given: Any) -> dict[str, Any]:
    """A tool use block."""
    return {"type": "tool_use", "id": f"u{number}", "name": name, "input": given}


def test_the_first_turn_carries_system_tools_and_prompt() -> None:
    """The hand can build the request from the log alone; effects are the hive's, not the model's."""
    call = buzzed(max_tokens=99).last(ModelRequested)
    assert (call.conversation, call.turn, call.role, call.task_id) == ("drone", 1, "drone", "fix")
    assert (call.system, call.max_tokens) == ("be good", 99)
    assert call.messages == ({"role": "user", "content": "Mend it."},)
    assert call.tools[0] == {"name": "read", "description": "reads", "input_schema": {"type": "object"}}


def test_an_answer_without_tools_is_the_end() -> None:
    """Its text is the drone's output."""
    hive = buzzed().when(says("All well."))
    done = hive.last(DroneCompleted)
    assert (done.output, done.commit, done.turns, done.task_id) == ("All well.", None, 1, "fix")


def test_tools_are_called_one_after_the_other_from_the_tree_before_them() -> None:
    """Each intent has its effect class, its place, and the commit it starts from."""
    hive = buzzed().when(says("I look.", use("edit", 1, path="a"), use("read", 2, path="b")))
    assert hive.last(DroneMessage).text == "I look."
    first = hive.last(ToolRequested)
    assert (first.tool, first.input, first.effect, first.turn) == ("edit", {"path": "a"}, EffectClass.IDEMPOTENT, 1)
    assert first.workspace == {"path": "w", "base": "c0", "task_id": "fix", "try_number": 1}
    answer: dict[str, Any] = {"commit": "c1", "worktree": "fix.1-2.2"}
    hive.when(ToolReturned(tool_use_id="u1", output="edited", **answer))
    second = hive.last(ToolRequested)
    assert second.effect is EffectClass.PURE
    assert (second.workspace["commit"], second.workspace["worktree"]) == ("c1", "fix.1-2.2")
    assert second.effect_key != first.effect_key
    hive.when(ToolReturned(tool_use_id="u2", output=""))
    call = hive.last(ModelRequested)
    assert (call.turn, call.system, call.tools) == (2, "", ())
    assert call.messages[0]["content"] == [
        {"type": "tool_result", "tool_use_id": "u1", "content": "edited"},
        {"type": "tool_result", "tool_use_id": "u2", "content": "(no output)"},
    ]
    assert hive.when(says("Done.")).last(DroneCompleted).commit == "c1"


def test_a_tool_of_unknown_effect_is_thought_unsafe() -> None:
    """It never runs again silently."""
    assert buzzed().when(says("", use("mail"))).last(ToolRequested).effect is EffectClass.UNSAFE


def test_a_tool_that_the_drone_was_not_given_is_answered_without_a_hand() -> None:
    """The model reads which tools there are, and goes on."""
    hive = buzzed().when(says("", use("saw"), use("read", 2)))
    assert [call.tool for call in hive.all(ToolRequested)] == ["read"]
    hive.when(ToolReturned(tool_use_id="u2", output="text"))
    unknown, known = hive.last(ModelRequested).messages[0]["content"]
    assert unknown["is_error"] is True
    assert "no tool 'saw'" in unknown["content"]
    assert "is_error" not in known


def test_only_unknown_tools_lead_to_the_next_turn_at_once() -> None:
    """Nothing waits for a hand that nobody asked."""
    hive = buzzed().when(says("", use("saw")))
    assert hive.last(ModelRequested).turn == 2


def test_a_tools_own_error_is_read_by_the_model() -> None:
    """The drone goes on with it."""
    hive = buzzed().when(says("", use("read"))).when(ToolReturned(tool_use_id="u1", output="no file", is_error=True))
    block = hive.last(ModelRequested).messages[0]["content"][0]
    assert (block["is_error"], block["content"]) == (True, "no file")


@pytest.mark.parametrize(
    "end", [ToolFailed(reason="lost", kind="unknown"), ToolFailed(reason="lost"), ToolCancelled(reason="lost")]
)
def test_a_call_of_unknown_end_is_answered_as_such(end: ToolFailed | ToolCancelled) -> None:
    """No tool use stays open: it may have run, in part or in full."""
    block = buzzed().when(says("", use("edit"))).when(end).last(ModelRequested).messages[0]["content"][0]
    assert block["is_error"] is True
    assert block["content"].startswith("lost The outcome is unknown: it may have run, in part or in full.")


def test_a_failed_model_fails_the_drone() -> None:
    """The queue has tried often enough."""
    assert buzzed().when(ModelFailed(reason="overloaded")).last(DroneFailed).reason == "overloaded"


def test_an_answer_that_was_cut_off_goes_on() -> None:
    """The output is both parts."""
    hive = buzzed().when(says("First ", stop="max_tokens"))
    assert "cut off" in hive.last(ModelRequested).messages[0]["content"]
    assert hive.when(says("second.")).last(DroneCompleted).output == "First second."


def test_an_empty_answer_that_was_cut_off_fails() -> None:
    """There is nothing to go on from."""
    assert "max_tokens" in buzzed().when(says(stop="max_tokens")).last(DroneFailed).reason


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("refusal", "the model refused: I will not."),
        ("model_context_window_exceeded", "the conversation became too long: I will not."),
        ("brand_new", "the model stopped with 'brand_new': I will not."),
    ],
)
def test_any_other_stop_fails_the_drone_with_its_words(stop: str, reason: str) -> None:
    """What the model said is kept."""
    assert buzzed().when(says("I will not.", stop=stop)).last(DroneFailed).reason == reason


def test_a_drone_that_finds_no_end_is_stopped() -> None:
    """The limit is its profile's."""
    hive = buzzed(max_turns=2).when(says("", use("saw"))).when(says("", use("saw", 2)))
    assert hive.last(DroneFailed).reason == "not done after 2 turns"


def test_an_interrupt_ends_an_open_model_call_first() -> None:
    """It is asked to end once, then the drone stops."""
    stop = DroneInterruptRequested(drone_id="fix.1", reason="enough")
    hive = buzzed().given(stop, stop, stream=STREAM)
    assert hive.topics.count("model.cancel_requested") == 1
    hive.cancelled(hive.open_of(ModelRequested)[0])
    assert (hive.topics[-1], hive.last(DroneInterrupted).reason) == ("drone.interrupted", "enough")


def test_an_interrupt_ends_an_open_tool_call_first() -> None:
    """No further tool is called, though the model asked for two."""
    hive = buzzed().when(says("", use("edit"), use("read", 2)))
    hive.given(DroneInterruptRequested(drone_id="fix.1"), DroneInterruptRequested(drone_id="fix.1"), stream=STREAM)
    assert hive.topics.count("tool.cancel_requested") == 1
    hive.cancelled(hive.open_of(ToolRequested)[0])
    assert hive.topics[-1] == "drone.interrupted"
    assert len(hive.all(ToolRequested)) == 1


def test_an_interrupt_before_the_work_is_not_lost() -> None:
    """The drone never starts."""
    hive = Hive(Drone()).given(DroneHatched(drone_id="fix.1"), stream=STREAM)
    hive.given(DroneInterruptRequested(drone_id="fix.1"), stream=STREAM)
    hive.given(DroneBuzzed(drone_id="fix.1", prompt="Mend it."), stream=STREAM)
    assert "model.requested" not in hive.topics
    assert hive.topics.count("drone.interrupted") == 1


def test_a_real_answer_that_came_before_the_cancellation_still_stops_the_drone() -> None:
    """Nothing new is asked for."""
    hive = buzzed().given(DroneInterruptRequested(drone_id="fix.1"), stream=STREAM).when(says("", use("read")))
    assert hive.topics[-1] == "drone.interrupted"


def test_a_further_word_goes_with_the_next_call() -> None:
    """A person adds something while a tool runs."""
    hive = buzzed().when(says("", use("read")))
    hive.given(DroneBuzzed(drone_id="fix.1", prompt="Be quick."), stream=STREAM)
    hive.when(ToolReturned(tool_use_id="u1", output="x"))
    assert hive.last(ModelRequested).messages[0]["content"][1] == {"type": "text", "text": "Be quick."}


def test_a_drone_that_is_done_may_be_asked_again() -> None:
    """The conversation goes on; one that failed stays over."""
    hive = buzzed().when(says("Done.")).given(DroneBuzzed(drone_id="fix.1", prompt="And now?"), stream=STREAM)
    assert (hive.last(ModelRequested).turn, hive.last(ModelRequested).messages[0]["content"]) == (2, "And now?")
    hive.when(ModelFailed(reason="x")).given(DroneBuzzed(drone_id="fix.1", prompt="And?"), stream=STREAM)
    assert hive.topics[-1] == "drone.buzzed"


def test_the_log_makes_the_whole_request() -> None:
    """Turns and replies in order; every tool use has its result right behind it."""
    hive = buzzed().when(says("", use("read"))).when(ToolReturned(tool_use_id="u1", output="x"))
    first, second = hive.all(ModelRequested)
    request = build([(first, hive.last(ModelResponded)), (second, None)], attempt=1)
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
    assert request.system == "be good"


def test_numbers_beyond_what_canonical_json_can_hold_do_not_stop_a_drone() -> None:
    """The effect key is then of the plain JSON text."""
    hive = buzzed().when(says("", use("read", 1, size=2**60)))
    assert len(hive.last(ToolRequested).effect_key) == 64


def test_a_drone_state_is_the_same_from_the_log() -> None:
    """Live and rebuilt are equal."""
    hive = buzzed().when(says("Hm.", use("edit"), use("saw", 2))).when(ToolReturned(tool_use_id="u1", commit="c1"))
    assert hive.refolded() == hive.states
