"""What a batch does to the documents of read models.

A document's rows never overlap: a write at position p ends the row that holds
now at p and begins the next one there.
"""

from __future__ import annotations

from collections.abc import Sequence

from hive_core_db.judge.facts import Document, DocumentState, Facts
from hive_core_db.records import FencedOff, ViewWrite

Step = tuple[ViewWrite, int | None]
"""A write, and where the row begins that holds until it (None: there is no such row)."""

Changes = tuple[dict[Document, DocumentState], list[Step]]


class ViewChanges:
    """The documents that a batch touches, as they will be after it; ``steps`` are the writes, in the order of the requests."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._states: dict[Document, DocumentState] = {}
        self.steps: list[Step] = []

    def judge(self, writes: Sequence[ViewWrite]) -> Changes | FencedOff:
        """Return the steps that the writes come to, or what fences them off: a write into a document's past."""
        states: dict[Document, DocumentState] = {}
        steps: list[Step] = []
        for write in writes:
            document = write.view, write.version, write.key
            begun, floor = states.get(document) or self._state(document)
            if write.position < floor:
                return FencedOff(f"document {write.key} of view {write.view}", write.position, floor)
            steps.append((write, begun))
            states[document] = (None if write.body is None else write.position), write.position
        return states, steps

    def accept(self, changes: Changes) -> None:
        """Let later requests of the batch see the writes."""
        self._states.update(changes[0])
        self.steps.extend(changes[1])

    def _state(self, document: Document) -> DocumentState:
        state = self._states.get(document)
        if state is None:
            state = self._states[document] = self._facts.document(document)
        return state
