"""Pipelined publishing: up to ``size`` messages are on their way, and every one is accounted for.

Each names the sequence that must come before it, so that nothing can enter twice, in another order or with a hole. What the
server says of a message comes back by its position; an answer that is missing, late, out of turn or a refusal puts all behind
the last certain one in doubt, and the window is over. It has an inbox of its own: a later one hears nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import orjson

from hive_bus.mirror.connection import Connection
from hive_bus.mirror.encoding import EXPECTED_SEQUENCE, EXPECTED_STREAM, Message
from hive_errors.mirror import MirrorDoubt

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

SIZE: Final = 1024
ACK_SECONDS: Final = 5.0


class Window:
    """A window behind position ``last``, on one stream; ``sure`` is what is certainly there.

    Use it as an async context manager.
    """

    def __init__(
        self, connection: Connection, stream: str, last: int, *, size: int = SIZE, ack_seconds: float = ACK_SECONDS
    ) -> None:
        self.sure = last
        self.sent = last
        self._connection, self._client = connection, connection.client
        self._stream, self._size, self._ack_seconds = stream, size, ack_seconds
        self._doubt: MirrorDoubt | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._enough = 0
        self._failures: tuple[type[Exception], ...] = ()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._forget = connection.when_lost(self._lost)

    async def __aenter__(self) -> Self:
        from nats.errors import Error

        self._failures = (Error, OSError)
        inbox = self._client.new_inbox()
        self._inbox = f"{inbox}."
        try:
            self._subscription = await self._client.hear(f"{inbox}.*", self._hear)
        except self._failures as problem:
            self._forget()
            raise self._connection.unreachable(problem) from problem
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forget()
        if self._subscription is not None:
            await self._connection.end(self._subscription)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Send the messages of the next positions; waits while the window is full. Raises :class:`MirrorDoubt`."""
        done = 0
        while done < len(messages):
            if self.sent - self.sure >= self._size:
                # Half of it, so that publisher and answers are not in step.
                await self._until(self.sent - self._size // 2)
            if self._doubt is not None:
                raise self._doubt
            some = messages[done : done + self._size - (self.sent - self.sure)]
            ready = [self._addressed(position, one) for position, one in enumerate(some, start=self.sent + 1)]
            done += len(some)
            self.sent += len(some)
            try:
                await self._client.send(ready)
            except self._failures as problem:
                self._fail(str(problem) or type(problem).__name__)
                raise MirrorDoubt(position=self.sure, reason="it could not be sent") from problem

    def _addressed(self, position: int, message: Message) -> tuple[str, Message]:
        message.headers[EXPECTED_SEQUENCE] = str(position - 1)
        message.headers[EXPECTED_STREAM] = self._stream
        return f"{self._inbox}{position}", message

    async def settle(self) -> None:
        """Return when everything sent is certainly there. Raises :class:`MirrorDoubt`."""
        await self._until(self.sent)

    async def _until(self, position: int) -> None:
        loop = asyncio.get_running_loop()
        while self.sure < position:
            if self._doubt is not None:
                raise self._doubt
            before = self.sure
            self._waiter, self._enough = loop.create_future(), position
            try:
                await asyncio.wait((self._waiter,), timeout=self._ack_seconds)
            finally:
                self._waiter = None
            if self.sure == before and self._doubt is None:
                self._fail(f"no answer for {self._ack_seconds:g} s")
        if self._doubt is not None:
            raise self._doubt

    def _hear(self, subject: str, body: bytes) -> None:
        if self._doubt is not None:
            return
        try:
            position = int(subject[len(self._inbox) :])
            said = orjson.loads(body) if body else {}
        except ValueError:
            self._fail(f"an odd answer: {body[:100]!r}")
            return
        if said.get("seq") != position or said.get("stream") != self._stream or said.get("error") is not None:
            error = said.get("error") or {"description": "no stream answers" if not said else f"an odd answer: {said}"}
            self._fail(f"{error.get('description')} ({error.get('err_code', 'no code')}) at {position}")
        elif position != self.sure + 1:
            self._fail(f"the answer for {self.sure + 1} is missing, that for {position} came")
        else:
            self.sure = position
            if position >= self._enough:
                self._wake()

    def _lost(self) -> None:
        self._fail("the connection was lost")

    def _fail(self, reason: str) -> None:
        if self._doubt is None:
            self._doubt = MirrorDoubt(position=self.sure, reason=reason)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
