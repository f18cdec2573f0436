"""The fold of a stream, against Anthropic's own ``accumulate_event`` as the oracle."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.models.fold import BrokenStream, MessageFold

words = st.text(st.characters(codec="utf-8"), max_size=12)
counts = st.integers(0, 10_000)
maybe = st.none() | counts
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
citations = st.fixed_dictionaries(
    {
        "type": st.just("char_location"),
        "cited_text": words,
        "document_index": counts,
        "document_title": st.none() | words,
        "start_char_index": counts,
        "end_char_index": counts,
        "file_id": st.none(),
    }
)


@st.composite
def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    """``text`` cut anywhere into pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def _block(draw: st.DrawFn, index: int) -> list[dict[str, Any]]:
    """The events of one content block."""

    def delta(kind: str, word: str, value: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, word: value}}

    start: dict[str, Any]
    kind = draw(st.sampled_from(["text", "tool_use", "server_tool_use", "thinking", "redacted_thinking"]))
    if kind == "text":
        start = {"type": "text", "text": draw(st.just("") | words), "citations": None}
        deltas = [delta("text_delta", "text", piece) for piece in draw(_pieces(draw(words)))]
        deltas += [delta("citations_delta", "citation", draw(citations)) for _ in range(draw(st.integers(0, 2)))]
    elif kind in {"tool_use", "server_tool_use"}:
        name = "web_search" if kind == "server_tool_use" else draw(words)
        start = {"type": kind, "id": f"toolu_{index}", "name": name, "input": {}}
        text = json.dumps(draw(st.dictionaries(words, values, max_size=4)), ensure_ascii=draw(st.booleans()))
        pieces = draw(_pieces(text) | st.just([""]))
        deltas = [delta("input_json_delta", "partial_json", piece) for piece in pieces]
    elif kind == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [delta("thinking_delta", "thinking", piece) for piece in draw(_pieces(draw(words)))]
        deltas.append(delta("signature_delta", "signature", draw(words)))
    else:
        start, deltas = {"type": kind, "data": draw(words)}, []
    begin = {"type": "content_block_start", "index": index, "content_block": start}
    return [begin, *deltas, {"type": "content_block_stop", "index": index}]


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The events of a whole message."""
    usage = {"input_tokens": draw(counts), "output_tokens": 1, "cache_read_input_tokens": draw(maybe)}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": []}
    start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index in range(draw(st.integers(0, 4))):
        events += draw(_block(index))
    for reason in draw(
        st.lists(st.sampled_from(["tool_use", "end_turn", "refusal", "pause_turn"]), min_size=1, max_size=2)
    ):
        totals = {
            "output_tokens": draw(counts),
            "input_tokens": draw(maybe),
            "cache_creation_input_tokens": draw(maybe),
        }
        events.append(
            {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": totals}
        )
    return [*events, {"type": "message_stop"}]


def folded(events: list[dict[str, Any]]) -> MessageFold:
    """The fold after ``events``."""
    fold = MessageFold()
    for event in events:
        fold.feed(event)
    return fold


def by_the_oracle(events: list[dict[str, Any]]) -> Any:
    """What Anthropic's client makes of ``events``."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in copy.deepcopy(events):
        given: Any = event
        snapshot = accumulate_event(event=given, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


@settings(max_examples=150, deadline=None)
@given(streams())
def test_the_fold_makes_what_the_client_makes(events: list[dict[str, Any]]) -> None:
    """Content, stop reason and token counts are those of Anthropic's own fold, and the events are left as they were."""
    before = copy.deepcopy(events)
    fold = folded(events)
    message, oracle = fold.finish(), by_the_oracle(events).to_dict()
    assert message["content"] == [
        {name: value for name, value in block.items() if name != "parsed_output"} for block in oracle["content"]
    ]
    assert message["stop_reason"] == oracle["stop_reason"]
    usage, counted = fold.usage, oracle["usage"]
    assert usage is not None
    assert usage.input_tokens == counted["input_tokens"]
    assert usage.output_tokens == counted["output_tokens"]
    assert usage.cache_read_tokens == (counted.get("cache_read_input_tokens") or 0)
    assert usage.cache_write_tokens == (counted.get("cache_creation_input_tokens") or 0)
    assert events == before


@settings(max_examples=50, deadline=None)
@given(streams(), st.data())
def test_no_prefix_of_a_stream_is_a_message(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Wherever a stream breaks off, there is no message."""
    with pytest.raises(BrokenStream) as caught:
        folded(events[: data.draw(st.integers(0, len(events) - 1))]).finish()
    assert (caught.value.kind, caught.value.retryable) == ("incomplete_stream", True)


@settings(max_examples=50, deadline=None)
@given(streams())
def test_the_pieces_of_text_join_to_the_text_of_the_message(events: list[dict[str, Any]]) -> None:
    """What was heard piece by piece is what the text blocks hold."""
    fold = MessageFold()
    heard = "".join([fold.feed(event) for event in events])
    blocks = fold.finish()["content"]
    assert heard == fold.text == "".join(block["text"] for block in blocks if block["type"] == "text")
