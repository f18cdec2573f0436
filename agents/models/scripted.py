"""A model that answers from a YAML file, for demos, tests and work without a key.

It owns no state: an answer depends only on who asks (role, task, try), on the turn
and on the attempt, so order, crashes and parallel work do not matter. The file::

    prices: {input: 3.00, output: 15.00}     # dollars per million tokens, optional
    planner:
      "":                                    # "" is a call about the run as a whole
        - json: {steps: []}                  # turn 1
    drone:
      fix:
        - {text: I look., tools: [{name: read, input: {path: a.py}}]}
        - {text: done, repeat: true}         # this turn and every later one
      fix.2:                                 # the second try of task fix
        - {fail: {kind: overloaded_error, times: 1}, text: done}
      "*": [{text: nothing to do}]           # any other task

Keys are looked up as ``task.try``, ``task``, ``*``; the first that exists is taken,
also when it has no answer for the turn. It must not know a clock beyond ``delay`` and
``pace``, the words per second in which an answer is heard.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from agents.model import Charge, ModelFailure, ModelReply, ModelRequest, Usage
from agents.models.script import Answer, Script, load_script

__all__ = ["ScriptedModel", "load_script"]

_CHARACTERS_PER_TOKEN: Final = 4
_PRICE_TABLE: Final = "scripted"
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """The model port on a script; see ``agents.model.Model`` for the guarantees."""

    script: Script
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def respond(
        self, request: ModelRequest, *, on_text: Callable[[str], None] | None = None
    ) -> ModelReply | ModelFailure:
        """Answer from the script; a missing answer is a failure that says what to add to the file."""
        answer = self._find(request)
        if answer is None:
            return _missing(self.script, request)
        if answer.delay:
            await self.sleep(answer.delay)
        fault = answer.fail
        if fault is not None and (fault.times is None or request.attempt <= fault.times):
            reason = fault.reason or f"planned by {self.script.file} for {_key_of(request)}"
            return ModelFailure(
                reason=reason, kind=fault.kind, retryable=fault.retryable, retry_after=fault.retry_after
            )
        if on_text is not None:
            await self._speak(answer, on_text)
        return self._reply(request, answer)

    def charge(self, model: str, usage: Usage) -> Charge:
        """By the script's own prices."""
        prices = self.script.prices
        dollars = (usage.input_tokens * prices.input + usage.output_tokens * prices.output) / Decimal(_MILLION)
        return Charge(amount=f"{dollars:f}", price_table=_PRICE_TABLE)

    async def aclose(self) -> None:
        """Do nothing: a script holds nothing open."""

    def _find(self, request: ModelRequest) -> Answer | None:
        answers = _answers_for(self.script.roles.get(request.role, {}), request)
        if request.turn <= len(answers):
            return answers[request.turn - 1]
        return answers[-1] if answers and answers[-1].repeat else None

    async def _speak(self, answer: Answer, on_text: Callable[[str], None]) -> None:
        """Hand the text on as a model does, word by word where the answer has a pace."""
        for word in [answer.spoken] if answer.pace is None else re.findall(r"\s*\S+|\s+\Z", answer.spoken):
            if answer.pace is not None:
                await self.sleep(1 / answer.pace)
            if word:
                on_text(word)

    def _reply(self, request: ModelRequest, answer: Answer) -> ModelReply:
        text = answer.spoken
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        content += [
            {"type": "tool_use", "id": _tool_use_id(request, ordinal), "name": use.name, "input": use.input}
            for ordinal, use in enumerate(answer.tools)
        ]
        usage = _usage(request, content)
        return ModelReply(
            message={"role": "assistant", "content": content},
            stop_reason=answer.stop_reason or ("tool_use" if answer.tools else "end_turn"),
            usage=usage,
            model=request.model,
            charge=self.charge(request.model, usage),
        )


def _answers_for(tasks: Mapping[str, tuple[Answer, ...]], request: ModelRequest) -> tuple[Answer, ...]:
    task = request.task or ""
    for key in (f"{task}.{request.try_number}", task, "*"):
        if key in tasks:
            return tasks[key]
    return ()


def _key_of(request: ModelRequest) -> str:
    return f"role {request.role}, task {request.task or ''!r}, try {request.try_number}, turn {request.turn}"


def _missing(script: Script, request: ModelRequest) -> ModelFailure:
    have = len(_answers_for(script.roles.get(request.role, {}), request))
    task = json.dumps(request.task or "", ensure_ascii=False)
    snippet = f'{request.role}:\n  {task}:\n    # after the {have} answers that are there\n    - text: "..."'
    reason = f"{script.file} has no answer for {_key_of(request)}; add it:\n{snippet}"
    return ModelFailure(reason=reason, kind="missing_answer", retryable=False)


def _tool_use_id(request: ModelRequest, ordinal: int) -> str:
    place = f"{request.role}_{request.task or ''}_{request.try_number}_{request.turn}_{ordinal}"
    # Messages-API ids are [a-zA-Z0-9_-]+; task names may be anything.
    return "toolu_" + re.sub(r"[^a-zA-Z0-9_-]", "-", place)


def _usage(request: ModelRequest, content: list[dict[str, Any]]) -> Usage:
    sent = [request.system, *request.messages, *request.tools]
    return Usage(input_tokens=_tokens(sent), output_tokens=_tokens(content))


def _tokens(value: Any) -> int:
    return -(-len(json.dumps(value, ensure_ascii=False, sort_keys=True)) // _CHARACTERS_PER_TOKEN)
