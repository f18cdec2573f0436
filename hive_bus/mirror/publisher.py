"""nats-py's client with a short way for what a relay does: many messages in one buffer, and acknowledgements without a task between.

It imports nats-py and is imported only where a connection is made. Should a later nats-py call other methods, acknowledgements take the
usual way through the subscription's callback: slower, and otherwise the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError

from hive_bus.mirror.encoding import Message

Take = Callable[[str, bytes], None]
"""What an answer is handed to, on the loop: subject and body. It must not raise."""

_BEGIN: Final = "NATS/1.0\r\n"
_ENOUGH: Final = 256 * 1024
"""Bytes that are handed over at once: large messages wait for the socket one after the other, small ones go together."""


class Publisher(Client):
    """A client, and ``send`` and ``hear``."""

    def __init__(self) -> None:
        super().__init__()
        self._takes: dict[int, Take] = {}

    async def send(self, messages: Iterable[tuple[str, Message]]) -> None:
        """Publish messages, each with the subject to answer to. Raises what ``publish`` does."""
        if self.is_closed or not self.is_connected:
            raise ConnectionClosedError
        buffer = bytearray()
        for reply, message in messages:
            lines = [f"{name}: {value}\r\n" for name, value in message.headers.items()]
            headers = f"{_BEGIN}{''.join(lines)}\r\n".encode()
            size = len(headers) + len(message.body)
            buffer += f"HPUB {message.subject} {reply} {len(headers)} {size}\r\n".encode()
            buffer += headers
            buffer += message.body
            buffer += b"\r\n"
            if len(buffer) >= _ENOUGH:
                await self._send_command(bytes(buffer))
                buffer.clear()
        await self._send_command(bytes(buffer))
        await self._flush_pending()

    async def hear(self, subject: str, take: Take) -> Subscription:
        """Subscribe to answers."""

        async def usual(message: Msg) -> None:
            take(message.subject, message.data)

        subscription = await self.subscribe(subject, cb=usual)
        known = {sid: other for sid, other in self._takes.items() if sid in self._subs}
        self._takes = {**known, subscription._id: take}
        return subscription

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        # Until it is ended: what comes later belongs to a window that is over.
        if (take := self._takes.get(sid)) is not None and sid in self._subs:
            take(subject.decode(), data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)
