"""Signals inside a process: who hears what, what is left out, and what a listener makes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hive_bus.record import Record
from hive_bus.signals import LONGEST, QUEUE, Listener, Signal, Signals
from hive_bus.underway import KEPT, MOST, Underway
from hive_bus.voice import EVERY, Voice, unfinished
from hive_core_db.records import StoredEvent
from tests.support.patience import WITHIN


def record(topic: str, *, event_id: str = "e", causation_id: str | None = None, **data: object) -> Record:
    """A record with what matters here."""
    fields: dict[str, object] = dict.fromkeys(StoredEvent._fields, 0)
    fields |= {
        "topic": topic,
        "event_id": event_id,
        "causation_id": causation_id,
        "stream": "r/run",
        "correlation_id": "r",
        "payload": orjson.dumps(data).decode(),
    }
    return Record(**fields)  # type: ignore[arg-type]


INTENT = record("tool.requested", event_id="i")


def signal(ordinal: int, text: str = "", **fields: object) -> Signal:
    """A piece of an attempt's text."""
    known = {"run": "r", "stream": "r/run", "intent_id": "i", "topic": "tool.requested", "attempt": 1, "kind": "text"}
    return Signal.model_validate({**known, "ordinal": ordinal, "text": text, **fields})


async def heard(listener: Listener, number: int) -> list[Signal]:
    """The next so many signals."""
    return [await anext(listener) for _ in range(number)]


def text_of(signals: Iterable[Signal]) -> str:
    """The text of signals, joined."""
    return "".join(one.text for one in signals)


class TestVoice:
    """What an attempt says, put together."""

    async def test_many_pieces_are_few_signals(self) -> None:
        """Deltas are sent together, twenty times in a second at most, and nothing of them is lost or doubled."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="t", attempt=2)
        loop = asyncio.get_running_loop()
        with signals.listen("r") as listener:
            begun, pieces = loop.time(), [f"{number} " for number in range(1000)]
            for piece in pieces:
                voice.say(piece)
                await asyncio.sleep(0)
            voice.close()
            sent = signals.sent
            found = await heard(listener, sent)
        assert sent <= (loop.time() - begun) / EVERY + 2
        assert text_of(found) == "".join(pieces)[-LONGEST * sent :]
        assert [one.ordinal for one in found] == list(range(1, sent + 1))
        assert {(one.task, one.attempt, one.intent_id, one.topic) for one in found} == {("t", 2, "i", "tool.requested")}

    async def test_nothing_is_put_together_for_nobody(self) -> None:
        """Without a listener nothing is sent; who comes in the middle hears how much it missed."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        voice.say("x" * 70)
        with signals.listen() as listener:
            voice.say("y")
            (first,) = await heard(listener, 1)
        voice.close()
        assert (first.text, first.left_out, signals.sent) == ("y", 70, 1)

    async def test_a_flood_is_its_end(self) -> None:
        """Of more than a signal holds the last part is sent, with how much is missing before it, in bytes for output."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        with signals.listen() as listener:
            for _ in range(3):
                voice.say(b"x" * 1_000_000)
            voice.say(b"end")
            voice.say("word" * LONGEST)
            text, output = await heard(listener, 2)
        voice.close()
        assert (output.kind, output.left_out, len(output.text)) == ("output", 3_000_003 - LONGEST, LONGEST)
        assert output.text.endswith("xend")
        assert (text.kind, text.left_out, len(text.text)) == ("text", 3 * LONGEST, LONGEST)

    async def test_characters_stay_whole(self) -> None:
        """A character whose bytes come in two pieces is sent with the second; bytes that are none are replaced."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        with signals.listen() as listener:
            voice.say("größe".encode()[:3])
            first = await anext(listener)
            voice.say("größe".encode()[3:] + b"\xff\xe2\x82")
            second = await anext(listener)
            voice.close()
            third = await anext(listener)
        assert [one.text for one in (first, second, third)] == ["gr", "öße\ufffd", "\ufffd"]

    async def test_half_a_character_can_travel(self) -> None:
        """A lone surrogate, of which no UTF-8 can be made, is a question mark; so is one in words about progress."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        with signals.listen() as listener:
            voice.say("a\ud83d")
            voice.progress("b\ud83d", fraction=float("nan"))
            text, progress = await heard(listener, 2)
        voice.close()
        assert (text.text, progress.text, progress.fraction) == ("a?", "b?", None)

    async def test_progress_replaces_itself(self) -> None:
        """Only the last state of a while is sent, with a fraction between 0 and 1."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        with signals.listen() as listener:
            for step in range(100):
                voice.progress(f"step {step}", fraction=step / 50)
            voice.close()
            (only,) = await heard(listener, 1)
        assert (only.kind, only.text, only.fraction, signals.sent) == ("progress", "step 99", 1.0, 1)

    async def test_threads_may_talk_and_are_not_heard_after_the_end(self) -> None:
        """A tool in a thread says how far it is; a thread that goes on after the attempt's end is not heard."""
        signals = Signals()
        voice = Voice(signals, INTENT, task="", attempt=1)
        goes_on = threading.Event()

        def work() -> None:
            for number in range(5000):
                voice.say(f"{number},")
            goes_on.wait(WITHIN)
            voice.say("late")

        with signals.listen() as listener:
            thread = threading.Thread(target=work)
            thread.start()
            found = [await anext(listener)]
            while not text_of(found).endswith("4999,"):
                found.append(await anext(listener))
            voice.close()
            sent = signals.sent
            goes_on.set()
            await asyncio.to_thread(thread.join)
        assert (signals.sent, len(found)) == (sent, sent)

    @given(st.text(), st.integers(0, 4))
    def test_what_is_unfinished_is_the_end_of_a_character(self, text: str, less: int) -> None:
        """Without the unfinished end the rest decodes, and never more than three bytes wait."""
        data = text.encode("utf-8", "replace")
        data = data[: max(len(data) - less, 0)]
        rest = unfinished(data)
        assert rest <= 3
        assert text.encode("utf-8", "replace").decode().startswith(data[: len(data) - rest].decode())


class TestListening:
    """Who hears what."""

    async def test_a_slow_listener_loses_the_oldest(self) -> None:
        """Its queue has a bound; what gives way is counted, and who is quick enough loses nothing."""
        signals = Signals()
        with signals.listen() as slow, signals.listen("other") as other:
            for number in range(QUEUE + 10):
                signals.send(signal(number))
            assert slow.dropped == signals.dropped == 10
            assert (await anext(slow)).ordinal == 10
            assert other.dropped == 0

    async def test_a_run_hears_its_own(self) -> None:
        """A listener of one run hears no other's; nobody listens any more when the block is left."""
        signals = Signals()
        with signals.listen("r") as mine, signals.listen() as all_of_them:
            assert signals.wanted_runs == {"*"}
            signals.send(signal(1, run="elsewhere"))
            signals.send(signal(2))
            assert (await anext(mine)).ordinal == 2
            assert [one.ordinal for one in await heard(all_of_them, 2)] == [1, 2]
        assert not signals.wanted

    async def test_closing_ends_listeners_behind_what_was_said(self) -> None:
        """Whoever listens is not left waiting when the bus closes."""
        signals = Signals()
        with signals.listen() as listener:
            signals.send(signal(1))
            signals.close()
            assert [one.ordinal async for one in listener] == [1]

    def test_a_signal_from_elsewhere_is_checked(self) -> None:
        """Sizes and numbers have bounds, whoever made it."""
        for wrong in ({"text": "x" * (LONGEST + 1)}, {"fraction": 1.5}, {"kind": "shout"}, {"attempt": -1}):
            with pytest.raises(ValidationError):
                signal(1, **wrong)


class TestUnderway:
    """What a listener makes of signals and of the log."""

    def test_words_are_joined_until_the_result_replaces_them(self) -> None:
        """Pieces make the text; the result's record takes it away, and what comes late is worth nothing."""
        underway = Underway()
        underway.tell(record("tool.started", causation_id="i", attempt=1))
        for ordinal, text in enumerate(["I am ", "looking"], start=1):
            underway.hear(signal(ordinal, text))
        (doing,) = underway.doing
        assert (doing.text, doing.whole) == ("I am looking", True)
        underway.tell(record("tool.returned", causation_id="i"))
        assert underway.doing == ()
        assert underway.hear(signal(3, " late")) is None
        assert "i" not in underway

    def test_a_result_may_come_first(self) -> None:
        """The way over NATS may be longer than that of the log: of what has ended nothing is shown."""
        underway = Underway()
        underway.tell(record("tool.returned", causation_id="i"))
        assert underway.hear(signal(1, "late")) is None

    @pytest.mark.parametrize("said_by_the_log", [True, False])
    def test_attempts_are_told_apart(self, said_by_the_log: bool) -> None:
        """What the process of a lost lease goes on to say is not mixed with the words of the attempt that counts."""
        underway = Underway()
        underway.hear(signal(1, "old"))
        if said_by_the_log:
            underway.tell(record("tool.started", causation_id="i", attempt=2))
            assert underway.doing == ()
        underway.hear(signal(1, "new", attempt=2))
        assert underway.hear(signal(2, " old", attempt=1)) is None
        assert [(doing.attempt, doing.text) for doing in underway.doing] == [(2, "new")]

    def test_a_failed_attempt_is_gone(self) -> None:
        """Its words go with it, also where its failure is heard of before they are; what it asks to cancel goes on."""
        underway = Underway()
        underway.hear(signal(1, "try"))
        underway.tell(record("tool.cancel_requested", causation_id="i"))
        assert "i" in underway
        underway.tell(record("tool.attempt_failed", causation_id="i", attempt=1))
        assert underway.doing == ()
        assert underway.hear(signal(2, "late")) is None
        assert underway.hear(signal(1, "again", attempt=2)) is not None

    def test_a_hole_is_not_glued_over(self) -> None:
        """Where something was lost the text begins anew, and says that it is not whole."""
        underway = Underway()
        underway.hear(signal(1, "abc"))
        underway.hear(signal(3, "ghi"))
        assert [(doing.text, doing.whole) for doing in underway.doing] == [("ghi", False)]
        assert underway.hear(signal(2, "def")) is None
        underway.hear(signal(4, "xyz", left_out=5))
        underway.hear(signal(5, "!", kind="progress", fraction=0.5))
        (doing,) = underway.doing
        assert (doing.text, doing.progress, doing.fraction) == ("xyz", "!", 0.5)

    def test_it_is_bounded(self) -> None:
        """As many effects and as much text as are said to be kept, and no more."""
        underway = Underway()
        for number in range(MOST + 5):
            underway.hear(signal(1, "x" * 3000, intent_id=str(number)))
        underway.hear(signal(2, "y" * 3000, intent_id=str(MOST)))
        assert len(underway.doing) == MOST
        assert max(len(doing.text) for doing in underway.doing) == KEPT
