"""What a commit is called in a comparison: by the calls that made it, for two runs never have the same ones.

A commit holds its time, so a call that is made again in a branch leaves another one, with the same content. Here it goes
by the call that it was left by, with what that started from and what it said. Pure; it must not know git.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from hive_bus import Record

_COMMIT: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_SAID: Final = ("model", "system", "messages", "tools", "params", "max_tokens")


class CommitNames:
    """The names of a run's commits, learned from its records in their order."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._tip = ""
        self._trees: dict[str, str] = {}
        self._talks: dict[tuple[str, str], dict[int, str]] = {}

    def key(self, record: Record) -> str:
        """What was asked for with an intent: its effect key, or one of its own where that speaks of commits with names."""
        data = record.data
        if record.topic == "model.requested":
            return self._call(record) or str(data.get("effect_key") or "")
        place = data.get("workspace") or {}
        tree = str(place.get("commit") or place.get("base") or "")
        self._trees[record.event_id] = tree
        asked = self._named(text({name: data.get(name) for name in ("kind", "command", "tool", "input", "env")}))
        if key := str(data.get("effect_key") or ""):
            return _digest(self._names[tree], asked) if tree in self._names else key
        return asked

    def learn(self, key: str, result: str, end: Record) -> None:
        """Name what an effect with this key has left, if that is another tree than it started from."""
        data = end.data if isinstance(end.data, dict) else {}
        commit = str(data.get("commit") or "")
        if commit and commit != self._trees.get(end.causation_id or ""):
            self._names.setdefault(commit, _digest("left", key, result))
        told = data.get("data")
        if data.get("tool") == "workspace.integrate" and isinstance(told, Mapping) and (head := told.get("head")):
            self._tip = self._names.setdefault(str(head), _digest("merged", self._tip, key))

    def _call(self, record: Record) -> str:
        """The key of a model call in whose conversation a commit with a name was spoken of; empty of any other."""
        data = record.data
        talk = self._talks.setdefault((record.stream.partition("/")[2], str(data.get("conversation"))), {})
        turn = int(data.get("turn") or 1)
        before = max((one for one in talk if one < turn), default=0)  # a branch asks a turn again
        said = text({name: data.get(name) for name in _SAID})
        named = self._named(said)
        if named == said and not before:
            return ""
        talk[turn] = _digest(talk.get(before, ""), named)
        return talk[turn]

    def _named(self, text: str) -> str:
        return _COMMIT.sub(lambda found: self._names.get(found[0], found[0]), text) if self._names else text


def text(value: Any) -> str:
    """Equal text for equal JSON values, whatever their order; unlike `canonical`, also for large numbers, and for long talks in no time."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()
