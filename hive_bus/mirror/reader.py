"""nats-py's client with a short way for the messages of one subscription: they come as bytes, without a task and a queue between.

It imports nats-py and is imported only where a connection is made. nats-py calls `_process_msg` for every message; should a later
one call something else, all messages take its usual way, to the subscription's own callback: slower, and otherwise the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from hive_bus.mirror.publisher import Publisher

_BEGIN: Final = b"NATS/1.0\r\n"
_END: Final = 4

Take = Callable[[str, str, Mapping[str, str], bytes], None]
"""What a message is handed to, on the loop: subject, reply, headers, body. It must not raise."""


class Reader(Publisher):
    """A client, and ``read``."""

    def __init__(self) -> None:
        super().__init__()
        self._sid = -1
        self._take: Take | None = None

    async def read(self, subject: str, take: Take) -> Subscription:
        """Subscribe; what comes of JetStream goes to ``take``, with what JetStream says of a request (no reply, a `Status`)."""

        async def hear(message: Msg) -> None:
            take(message.subject, message.reply, message.headers or {}, message.data)

        subscription = await self.subscribe(subject, cb=hear)
        self._sid, self._take = subscription._id, take
        return subscription

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid == self._sid and self._take is not None and reply and headers and headers.startswith(_BEGIN):
            try:
                # A relay's headers hold no space: every ": " ends a name.
                words = headers[len(_BEGIN) : -_END].decode().replace(": ", "\r\n").split("\r\n")
                known = dict(zip(words[::2], words[1::2], strict=True))
            except ValueError:
                known = None  # somebody else's: in the usual way, whatever it is
            if known is not None:
                self._take(subject.decode(), reply.decode(), known, data)
                return
        await super()._process_msg(sid, subject, reply, data, headers)
