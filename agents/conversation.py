"""A conversation with a model, as a brain keeps it: which call is open, how far it is, its chained key.

Owns how ``model.requested`` chains: the first carries system and tools, each its new
messages only. It must not know what is talked about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import rfc8785

from hive_bus.brains.brain import Input
from hive_bus.effects import effect_key
from hive_bus.event import Event
from hive_bus.events.model import ModelCancelRequested, ModelRequested

__all__ = ["Conversation", "ask", "ask_again", "heard", "inherited", "key_of_call", "lapsed", "request_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """``turn`` is that of the last call, ``key`` its effect key, ``open`` its intent while it has not ended.

    ``asked`` is the open call itself and ``before`` the key it chains to. In a branch, ``stale`` is an open call of the
    parent's, which ends only if its reply is inherited, and ``again`` one that has to be asked again.
    """

    name: str
    role: str
    model: str = ""
    task_id: str = ""
    try_number: int = 1
    priority: int = 5
    turn: int = 0
    key: str = ""
    open: str = ""
    cancel_asked: bool = False
    asked: ModelRequested | None = None
    before: str = ""
    stale: bool = False
    again: bool = False

    def cancel(self, reason: str = "the run is cancelled") -> tuple[Event, ...]:
        """Ask the open call to end, once."""
        if not self.open or self.cancel_asked or self.stale:
            return ()
        return (ModelCancelRequested(intent_id=self.open, reason=reason),)


def ask(
    talk: Conversation,
    prompt: str | list[dict[str, Any]],
    *,
    system: str = "",
    tools: tuple[dict[str, Any], ...] = (),
    max_tokens: int = 8192,
) -> ModelRequested:
    """The next call; ``system`` and ``tools`` count on the first turn alone."""
    request = ModelRequested(
        conversation=talk.name,
        turn=talk.turn + 1,
        role=talk.role,
        task_id=talk.task_id,
        try_number=talk.try_number,
        model=talk.model,
        system="" if talk.turn else system,
        messages=({"role": "user", "content": prompt},),
        tools=() if talk.turn else tools,
        max_tokens=max_tokens,
        priority=talk.priority,
    )
    return request.model_copy(update={"effect_key": request_key(request, previous=talk.key)})


def ask_again(talk: Conversation, *, system: str = "") -> ModelRequested:
    """The call that was open when the run was forked, to the model and under the system prompt of now."""
    assert talk.asked is not None, talk
    changes = {"model": talk.model, "priority": talk.priority, "system": "" if talk.turn > 1 else system}
    request = talk.asked.model_copy(update=changes)
    return request.model_copy(update={"effect_key": request_key(request, previous=talk.before)})


def inherited(talk: Conversation, *, model: str) -> Conversation:
    """The conversation where a branch begins: an open call is the parent's."""
    return replace(talk, model=model, stale=bool(talk.open))


def lapsed(talk: Conversation) -> Conversation:
    """The conversation when everything inherited was heard: a call that is still the parent's must be asked again."""
    return replace(talk, open="", cancel_asked=False, stale=False, again=True) if talk.stale else talk


def request_key(request: ModelRequested, *, previous: str = "") -> str:
    """The effect key of a call, from the one before it and what is new; the hand computes it again."""
    new = {
        "system": request.system,
        "tools": request.tools,
        "messages": request.messages,
        "params": request.params,
        "max_tokens": request.max_tokens,
    }
    return key_of_call("model", request.model, new, previous=previous)


def heard(talk: Conversation, record: Input) -> Conversation:
    """The conversation after a call was made, asked to end, or has ended."""
    match record.event:
        case ModelRequested(conversation=name, turn=turn, effect_key=key) as asked if name == talk.name:
            return replace(
                talk,
                turn=turn,
                key=key,
                open=record.event_id,
                cancel_asked=False,
                asked=asked,
                before=talk.before if turn == talk.turn else talk.key,
                stale=False,
                again=False,
            )
        case ModelCancelRequested(intent_id=intent) if intent == talk.open:
            return replace(talk, cancel_asked=True)
        case _ if record.causation_id is not None and record.causation_id == talk.open:
            return replace(talk, open="", cancel_asked=False, asked=None, stale=False)
        case _:
            return talk


def key_of_call(kind: str, name: str, payload: Any, *, previous: str = "", tree: str = "") -> str:
    """The effect key; of the JSON text where RFC 8785 has no form for a value, such as an integer beyond 53 bits."""
    try:
        return effect_key(kind, name, payload, previous=previous, tree=tree)
    except rfc8785.CanonicalizationError:
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        return effect_key(kind, name, text, previous=previous, tree=tree)
