"""The drone: one model session as a stream: buzzed, asks its model, uses tools, is done.

Owns the loop between model and tools. Every tool use is answered, whatever became of
it, for a conversation with an open one is broken. Calls go one after the other: each
starts from the tree that the one before left. It must not know tasks, runs or what a
tool does. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

from agents.conversation import Conversation, ask, ask_again, heard, inherited, key_of_call, lapsed
from agents.model import text_of
from agents.prompts import BLOCKED, GO_ON, NO_SUCH_TOOL, UNKNOWN_OUTCOME
from agents.terms import NO_BRANCH, Terms
from hive_bus.brains.brain import Brain, Input
from hive_bus.effects import EffectClass
from hive_bus.event import Draft, Event
from hive_bus.events.drone import (
    DroneBuzzed,
    DroneCompleted,
    DroneFailed,
    DroneHatched,
    DroneInterrupted,
    DroneInterruptRequested,
    DroneMessage,
    DroneResumed,
)
from hive_bus.events.model import ModelCancelled, ModelCancelRequested, ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.tool import ToolCancelled, ToolCancelRequested, ToolFailed, ToolRequested, ToolReturned
from hive_bus.events.workflow import WorkflowForked

__all__ = ["Drone", "Flight"]

Phase = Literal["waiting", "called", "thinking", "answered", "over"]
_ENDINGS: Final = frozenset({"end_turn", "stop_sequence", "tool_use"})
_OFFERED: Final[tuple[str, ...]] = ("name", "description", "input_schema")
_GOES_ON: Final = frozenset({"max_tokens", "pause_turn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """What a drone knows of itself.

    ``uses`` are the tool uses of the last reply, ``results`` their answers so far, by id;
    ``open`` is the tool call under way, ``stale`` where it is the parent's of a branch, ``worktree`` where the last one
    worked. ``said`` is text of replies that were cut off.
    """

    id: str = ""
    task_id: str = ""
    try_number: int = 1
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    max_turns: int = 40
    max_tokens: int = 8192
    phase: Phase = "waiting"
    talk: Conversation = field(default_factory=lambda: Conversation(name="drone", role="drone"))
    prompts: tuple[str, ...] = ()
    workspace: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    worktree: str = ""
    text: str = ""
    said: str = ""
    unheard: bool = False
    stop_reason: str = ""
    uses: tuple[dict[str, Any], ...] = ()
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: str = ""
    used: str = ""
    stale: bool = False
    cancel_asked: bool = False
    fault: str = ""
    interrupt: str | None = None
    terms: Terms = NO_BRANCH

    @property
    def next_use(self) -> dict[str, Any] | None:
        """The first tool use that has no answer yet."""
        return next((use for use in self.uses if use["id"] not in self.results), None)

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The tool of this name that the drone was given."""
        return next((tool for tool in self.tools if tool.get("name") == name), None)


class Drone(Brain[Flight]):
    """One model session; ends with completed, failed or interrupted."""

    name: ClassVar[str] = "drone"
    version: ClassVar[int] = 1
    keyed_by: ClassVar[Literal["correlation", "stream"]] = "stream"
    stream_prefix: ClassVar[str] = "drone/"
    opens: ClassVar[str] = "drone.hatched"
    modules: ClassVar[tuple[str, ...]] = ("agents.conversation", "agents.prompts", "agents.terms")
    folds: ClassVar[tuple[str, ...]] = (
        "drone.hatched",
        "drone.buzzed",
        "drone.resumed",
        "drone.message",
        "drone.completed",
        "drone.failed",
        "drone.interrupted",
        "drone.interrupt_requested",
        "model.requested",
        "model.responded",
        "model.failed",
        "model.cancelled",
        "model.cancel_requested",
        "tool.requested",
        "tool.returned",
        "tool.failed",
        "tool.cancelled",
        "tool.cancel_requested",
    )

    def initial(self) -> Flight:
        """Not hatched yet."""
        return Flight()

    def evolve(self, state: Flight, record: Input) -> Flight:
        """What an event means for the session."""
        event = record.event
        if isinstance(event, _DRONES_OWN):
            return _lived(state, event)
        if isinstance(event, ToolRequested | ToolReturned | ToolFailed | ToolCancelled | ToolCancelRequested):
            return _worked(state, event, record)
        return _talked(state, record)

    def decide(self, state: Flight, record: Input) -> Sequence[Event | Draft]:
        """The next call, or the end."""
        return () if state.phase in ("waiting", "over") and state.interrupt is None else list(_next(state))

    def inherit(self, state: Flight, forked: Input) -> Flight:
        """The session under the branch's terms; uses of what is blocked there are answered."""
        assert isinstance(forked.event, WorkflowForked), forked
        terms = state.terms.under(forked.event)
        talk = inherited(state.talk, model=terms.model("drone", state.talk.model))
        state = replace(state, terms=terms, talk=talk, stale=bool(state.open), tools=terms.marked(state.tools))
        return _blocked(state) if not state.open else state

    def ended(self, state: Flight) -> bool:
        """Whether the session is over; after a completed one it may be buzzed again."""
        return state.phase == "over"


_DRONES_OWN: Final = (
    DroneHatched,
    DroneBuzzed,
    DroneResumed,
    DroneMessage,
    DroneInterruptRequested,
    DroneCompleted,
    DroneFailed,
    DroneInterrupted,
)


def _lived(state: Flight, event: Event) -> Flight:
    match event:
        case DroneHatched():
            return _hatched(state, event)
        case DroneBuzzed():
            return _buzzed(state, event)
        case DroneResumed():
            state = replace(state, talk=lapsed(state.talk))
            return _blocked(replace(state, open="", used="", stale=False)) if state.stale else state
        case DroneMessage():
            return replace(state, unheard=False)
        case DroneInterruptRequested(reason=reason):
            return state if state.phase == "over" else replace(state, interrupt=reason or "asked to stop")
        case DroneCompleted():
            return replace(state, phase="over", text="", said="", uses=(), results={}, interrupt=None)
        case _:
            return replace(state, phase="over", fault="over", interrupt=None)


def _talked(state: Flight, record: Input) -> Flight:
    match record.event:
        case ModelRequested():
            said = f"{state.said}{state.text}" if state.stop_reason in _GOES_ON and not state.uses else ""
            talk = heard(state.talk, record)
            return replace(state, phase="thinking", talk=talk, prompts=(), uses=(), results={}, text="", said=said)
        case ModelResponded() as reply if record.causation_id == state.talk.open:
            return _replied(replace(state, talk=heard(state.talk, record)), reply)
        case ModelFailed(reason=reason) | ModelCancelled(reason=reason) if record.causation_id == state.talk.open:
            fault = reason or "the model call was cancelled"
            return replace(state, phase="answered", talk=heard(state.talk, record), fault=fault)
        case ModelCancelRequested():
            return replace(state, talk=heard(state.talk, record))
        case _:
            return state


def _worked(state: Flight, event: Event, record: Input) -> Flight:
    match event:
        case ToolRequested(tool_use_id=use):
            return replace(state, open=record.event_id, used=use, cancel_asked=False, stale=False)
        case ToolCancelRequested(intent_id=intent):
            return replace(state, cancel_asked=True) if intent == state.open else state
        case _ if record.causation_id == state.open:
            return _used(state, event)
        case _:
            return state


def _hatched(state: Flight, event: DroneHatched) -> Flight:
    talk = replace(
        state.talk,
        model=state.terms.model("drone", event.model),
        task_id=event.task_id,
        try_number=event.try_number,
        priority=event.priority,
    )
    return replace(
        state,
        id=event.drone_id,
        task_id=event.task_id,
        try_number=event.try_number,
        system=event.system,
        tools=state.terms.marked(event.tools),
        max_turns=event.max_turns,
        max_tokens=event.max_tokens,
        talk=talk,
    )


def _buzzed(state: Flight, event: DroneBuzzed) -> Flight:
    """Work for the drone: at once, or as a further word with its next call; none after it failed."""
    if state.phase == "over" and state.fault:
        return state
    workspace = {**state.workspace, **event.workspace}
    phase: Phase = "called" if state.phase in ("waiting", "over") else state.phase
    return replace(state, phase=phase, prompts=(*state.prompts, event.prompt), workspace=workspace)


def _replied(state: Flight, reply: ModelResponded) -> Flight:
    """The reply; uses of tools that the drone was not given are answered here, without a hand."""
    content = reply.message.get("content") or ()
    blocks = content if isinstance(content, list | tuple) else ({"type": "text", "text": str(content)},)
    uses = tuple(block for block in blocks if block.get("type") == "tool_use")
    known = ", ".join(str(tool.get("name")) for tool in state.tools) or "none"
    results = {
        use["id"]: _result(use["id"], NO_SUCH_TOOL.format(tool=use.get("name"), known=known), is_error=True)
        for use in uses
        if state.manifest(use.get("name", "")) is None
    }
    text = text_of(blocks)
    return _blocked(
        replace(
            state,
            phase="answered",
            text=text,
            unheard=bool(text and uses),
            stop_reason=reply.stop_reason,
            uses=uses,
            results=results,
        )
    )


def _blocked(state: Flight) -> Flight:
    """With an answer to each open use of a tool that is blocked; nobody performs these."""
    answers = {
        use["id"]: _result(use["id"], BLOCKED.format(tool=use.get("name")), is_error=True)
        for use in state.uses
        if use["id"] not in state.results and (state.manifest(use.get("name", "")) or {}).get("blocked")
    }
    return replace(state, results={**state.results, **answers}) if answers else state


def _used(state: Flight, event: Event) -> Flight:
    commit, worktree = state.commit, state.worktree
    if isinstance(event, ToolReturned):
        commit = event.commit or commit
        worktree = event.worktree or worktree
        result = _result(state.used, event.output, is_error=event.is_error)
    else:
        reason = event.reason if isinstance(event, ToolFailed | ToolCancelled) else ""
        result = _result(state.used, f"{reason or 'It did not end.'} {UNKNOWN_OUTCOME}", is_error=True)
    results = {**state.results, state.used: result}
    state = replace(state, open="", used="", stale=False, commit=commit, worktree=worktree, results=results)
    return _blocked(state) if state.terms.branch else state


def _result(use_id: str, content: str, *, is_error: bool = False) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": use_id, "content": content or "(no output)"}
    return {**block, "is_error": True} if is_error else block


def _next(state: Flight) -> Iterator[Event]:
    if state.interrupt is not None:
        yield from _interrupted(state)
        return
    if state.talk.open or state.open:
        return
    if state.unheard:
        yield DroneMessage(drone_id=state.id, text=state.text, turn=state.talk.turn)
    if state.fault:
        yield _failed(state, state.fault)
    elif state.talk.again:
        yield ask_again(state.talk, system=state.terms.prompt("drone", state.system))
    elif state.phase == "called":
        yield _call(state, "\n\n".join(state.prompts))
    elif (use := state.next_use) is not None:
        yield _use(state, use)
    elif state.uses:
        further = [{"type": "text", "text": prompt} for prompt in state.prompts]
        yield _call(state, [*(state.results[use["id"]] for use in state.uses), *further])
    else:
        yield _end(state)


def _interrupted(state: Flight) -> Iterator[Event]:
    reason = state.interrupt or ""
    if state.talk.open:
        yield from state.talk.cancel(reason)
    elif state.open:
        if not (state.cancel_asked or state.stale):
            yield ToolCancelRequested(intent_id=state.open, reason=reason)
    else:
        yield DroneInterrupted(drone_id=state.id, task_id=state.task_id, try_number=state.try_number, reason=reason)


def _call(state: Flight, content: str | list[dict[str, Any]]) -> Event:
    if state.talk.turn >= state.max_turns:
        return _failed(state, f"not done after {state.max_turns} turns")
    offered = tuple({name: tool[name] for name in _OFFERED if name in tool} for tool in state.tools)
    system = state.terms.prompt("drone", state.system)
    return ask(state.talk, content, system=system, tools=offered, max_tokens=state.max_tokens)


def _use(state: Flight, use: dict[str, Any]) -> Event:
    name, given = use["name"], use.get("input") or {}
    manifest = state.manifest(name) or {}
    workspace = {**state.workspace, "task_id": state.task_id, "try_number": state.try_number}
    if state.commit:
        workspace["commit"] = state.commit
    if state.worktree:
        workspace["worktree"] = state.worktree
    tree = state.commit or state.workspace.get("base") or ""
    return ToolRequested(
        tool=name,
        input=given,
        tool_use_id=use["id"],
        task_id=state.task_id,
        try_number=state.try_number,
        turn=state.talk.turn,
        effect=EffectClass(manifest.get("effect") or EffectClass.UNSAFE),
        workspace=workspace,
        effect_key=key_of_call("tool", name, given, tree=tree),
        priority=state.talk.priority,
    )


def _end(state: Flight) -> Event:
    """A reply without tool uses: the end, unless the model was cut off or refused."""
    text = f"{state.said}{state.text}"
    if state.stop_reason in _GOES_ON and state.text:
        return _call(state, GO_ON)
    if state.prompts:
        return _call(state, "\n\n".join(state.prompts))
    if state.stop_reason in _ENDINGS:
        return DroneCompleted(
            drone_id=state.id,
            task_id=state.task_id,
            try_number=state.try_number,
            output=text,
            commit=state.commit,
            turns=state.talk.turn,
        )
    why = {"refusal": "the model refused", "model_context_window_exceeded": "the conversation became too long"}
    said = f": {text}" if text else ""
    return _failed(state, f"{why.get(state.stop_reason, f'the model stopped with {state.stop_reason!r}')}{said}")


def _failed(state: Flight, reason: str) -> DroneFailed:
    return DroneFailed(drone_id=state.id, task_id=state.task_id, try_number=state.try_number, reason=reason)
