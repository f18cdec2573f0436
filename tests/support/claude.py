"""Claude by script for whole runs: each conversation has its own plays on the strict server, by who asks and which turn.

``Claude(server, {"drone fix 1": [play, ...]})`` answers every request by the first play that is left under its
name: who asks, what it is about, which turn. What was told with each answer, usage included, is kept in ``told``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.messages_rules import complaint_about
from tests.support.messages_server import Connection, MessagesServer, Play, events_of, reply, stream

__all__ = ["Claude", "Told", "name_of", "says", "uses", "verdict"]

_ROLES = {"You are the planner": "planner", "You are a reviewer": "reviewer", "You are a drone": "drone"}
_TASK = re.compile(r"#([a-z]+)\b")


@dataclass(frozen=True, slots=True)
class Told:
    """The tokens that the server counted for an answer: ``input``, ``output``, cache ``read`` and ``write``; ``whole`` or cut off."""

    who: str
    input: int
    output: int
    read: int
    write: int
    whole: bool


@dataclass(slots=True)
class Claude:
    """Answers of whole conversations; a request that nobody planned for fails the run with its name."""

    server: MessagesServer
    plays: Mapping[str, Sequence[Play]]
    told: list[Told] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.plays.extend([self._play] * 500)

    async def _play(self, connection: Connection) -> None:
        who = name_of(connection.seen.body)
        self.asked.append(who)
        plays = self.plays.get(who, ())
        turn = self.asked.count(who) - 1
        if turn >= len(plays):
            plays, turn = (
                [reply({"type": "text", "text": f"nothing was planned for {who!r}"}, stop_reason="refusal")],
                0,
            )
        await plays[turn](_Counting(connection, self, who))

    def never_orphaned(self) -> bool:
        """Whether every request that arrived was one that the API takes: above all, every ``tool_use`` had its result."""
        return [seen for seen in self.server.seen if complaint_about(seen.body)] == []


class _Counting(Connection):
    """A connection that gives every answer a usage of its own, and remembers it."""

    def __init__(self, connection: Connection, claude: Claude, who: str) -> None:
        Connection.__init__(self, connection.seen, connection.reader, connection.writer, connection.server)
        number = len(claude.asked)
        self._claude, self._who = claude, who
        self._usage = {
            "input_tokens": 100 + number,
            "output_tokens": 50 + number,
            "cache_read_input_tokens": 10 * number,
            "cache_creation_input_tokens": number,
        }

    async def chunk(self, data: bytes) -> None:
        await Connection.chunk(self, self._counted(data))

    def _counted(self, data: bytes) -> bytes:
        """The event with this answer's own usage; what the client is told is what is remembered."""
        kind, _, text = data.partition(b"\ndata: ")
        if kind not in {b"event: message_start", b"event: message_delta"}:
            return data
        event = json.loads(text)
        begins = event["type"] == "message_start"
        usage = self._usage | ({"output_tokens": 1} if begins else {})
        (event["message"] if begins else event)["usage"] = usage
        told = Told(
            self._who,
            usage["input_tokens"],
            usage["output_tokens"],
            usage["cache_read_input_tokens"],
            usage["cache_creation_input_tokens"],
            whole=not begins,
        )
        if not begins:
            self._claude.told.remove(Told(self._who, told.input, 1, told.read, told.write, whole=False))
        self._claude.told.append(told)
        return kind + b"\ndata: " + json.dumps(event).encode() + b"\n\n"


def name_of(body: Mapping[str, Any]) -> str:
    """Who asks, about which ``#task`` of its first message, and in which turn: ``drone fix 1``, ``planner 1``."""
    system = str(body.get("system", ""))
    role = next((name for words, name in _ROLES.items() if system.startswith(words)), "somebody")
    first = json.dumps(body["messages"][0])
    task = _TASK.search(first)
    turn = 1 + sum(message["role"] == "assistant" for message in body["messages"])
    return " ".join([role, *(task.groups() if task and role != "planner" else ()), str(turn)])


def says(value: Any, *, stop_reason: str = "end_turn") -> Play:
    """An answer of text; anything that is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return reply({"type": "text", "text": text}, stop_reason=stop_reason)


def uses(use_id: str, name: str, text: str = "", **given: Any) -> Play:
    """An answer that uses one tool."""
    said = [{"type": "text", "text": text}] if text else []
    return reply(
        *said, {"type": "tool_use", "id": f"toolu_{use_id}", "name": name, "input": given}, stop_reason="tool_use"
    )


def verdict(word: str, *comments: str) -> Play:
    """A reviewer's answer."""
    return says({"verdict": word, "comments": list(comments)})


def cut(text: str, *, then: str = "cut") -> Play:
    """A stream that begins with this text and ends before ``message_stop``."""
    return stream(events_of([{"type": "text", "text": text}])[:-2], then=then)
