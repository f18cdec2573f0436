"""One connection to a NATS server: the way in, JetStream's requests, and messages by their sequences.

Owns what nats-py is used for. It never reconnects by itself: what was under way when a connection ended is in doubt, and whoever
used it begins again with a new one.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hive_bus.mirror.encoding import Message
from hive_bus.mirror.settings import NatsSettings
from hive_errors.mirror import MirrorClientMissing, MirrorUnreachable, MirrorUnsuitable

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from hive_bus.mirror.publisher import Publisher

LEAST_VERSION: Final = (2, 11, 2)
"""Reading by sequence in batches, metadata, and a stream with a first sequence that outlives a restart."""
LEAST_PAYLOAD: Final = 64 * 1024
CONNECT_SECONDS: Final = 5
REQUEST_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
BATCH: Final = 1000
_NO_PEERS: Final = 10005  # too few servers of the cluster are there, which is so while it starts
_NOT_THERE: Final = frozenset({"404", "408"})


class ApiRefused(Exception):
    """JetStream answered a request with an error; ``code`` is its own number (``err_code``)."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(code, description)
        self.code, self.description = code, description


class Connection:
    """An open connection; made by ``connected``."""

    def __init__(self, client: Publisher, url: str) -> None:
        self.client = client
        self.url = url
        self.trouble: Exception | None = None
        self._when_lost: set[Callable[[], None]] = set()

    @property
    def server_version(self) -> str:
        """The server's version, such as ``2.11.2``."""
        return re.sub(r"^<nats server v|>$", "", str(self.client.connected_server_version))

    @property
    def max_payload(self) -> int:
        """How many bytes headers and body of a message may have together."""
        return int(self.client.max_payload)

    def when_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when the connection ends; returns what takes that back."""
        self._when_lost.add(callback)
        return lambda: self._when_lost.discard(callback)

    async def lost(self) -> None:
        """Tell everybody; nats-py calls this when the connection has ended."""
        for callback in tuple(self._when_lost):
            callback()

    async def end(self, subscription: Subscription) -> None:
        """Hear no more of it; a connection that has ended has ended its subscriptions."""
        from nats.errors import Error

        try:
            if not self.client.is_closed:
                await subscription.unsubscribe()
        except (Error, OSError):
            pass  # it ended at this moment

    def unreachable(self, reason: object) -> MirrorUnreachable:
        """The error that says so."""
        return MirrorUnreachable(url=self.url, reason=" ".join(str(reason).split())[:200] or type(reason).__name__)

    async def ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API. Raises :class:`ApiRefused`, :class:`MirrorUnreachable`, :class:`MirrorUnsuitable`."""
        from nats.errors import Error, NoRespondersError

        data = b"" if body is None else orjson.dumps(body)
        try:
            with cancellation_kept():
                message = await self.client.request(f"$JS.API.{subject}", data, timeout=REQUEST_SECONDS)
        except NoRespondersError as problem:
            # A cluster without a leader says the same for a moment.
            raise self.unreachable("JetStream does not answer; it is off, or has no leader now") from problem
        except (Error, OSError, TimeoutError) as problem:
            raise self.unreachable(problem if str(problem) else type(problem).__name__) from problem
        answer: dict[str, Any] = orjson.loads(message.data)
        if (error := answer.get("error")) is not None:
            if error.get("code") == 503 or error.get("err_code") == _NO_PEERS:
                raise self.unreachable(error.get("description", "JetStream is not available"))
            raise ApiRefused(int(error.get("err_code", 0)), str(error.get("description", "")))
        return answer

    async def publish(self, subject: str, body: bytes, *, reply: str = "") -> None:
        """Say something on core NATS: who is there hears it."""
        from nats.errors import Error

        try:
            with cancellation_kept():
                await self.client.publish(subject, body, reply=reply)
        except (Error, OSError) as problem:
            raise self.unreachable(problem) from problem

    async def messages(self, stream: str, first: int, last: int) -> dict[int, Message]:
        """The messages of a stream with these sequences, by sequence, as far as they are there.

        Raises :class:`MirrorUnreachable`.
        """
        found: dict[int, Message] = {}
        while first <= last:
            batch = await self._batch(stream, first, min(BATCH, last - first + 1))
            found.update((number, message) for number, message in batch.items() if number <= last)
            if not batch or max(batch) >= last:
                break
            first = max(batch) + 1
        return found

    async def _batch(self, stream: str, first: int, count: int) -> dict[int, Message]:
        from nats.errors import Error

        found: dict[int, Message] = {}
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        heard = loop.time()

        async def hear(message: Msg) -> None:
            nonlocal heard
            heard = loop.time()
            headers = message.headers or {}
            number = headers.get("Nats-Sequence")
            if number is not None:
                found[int(number)] = Message(headers.get("Nats-Subject", ""), dict(headers), message.data)
            elif not done.done():
                status = headers.get("Status", "")
                if status == "204" or status in _NOT_THERE:
                    done.set_result(None)
                else:
                    done.set_exception(self.unreachable(headers.get("Description", f"status {status}")))

        try:
            inbox = self.client.new_inbox()
            subscription = await self.client.subscribe(inbox, cb=hear)
            try:
                question = orjson.dumps({"seq": first, "batch": count})
                await self.client.publish(f"$JS.API.DIRECT.GET.{stream}", question, reply=inbox)
                while not done.done():
                    await asyncio.wait((done,), timeout=REQUEST_SECONDS)
                    if not done.done() and (loop.time() - heard > REQUEST_SECONDS or self.client.is_closed):
                        raise self.unreachable("it stopped answering in the middle of a batch")
                await done
            finally:
                await self.end(subscription)
        except (Error, OSError) as problem:
            raise self.unreachable(problem) from problem
        return found


@asynccontextmanager
async def connected(
    settings: NatsSettings, *, name: str = "hive", client: Publisher | None = None, echo: bool = True
) -> AsyncIterator[Connection]:
    """Connect, look whether the server can hold a mirror, and close in the end; ``client`` is a new one in place of nats-py's own.

    Without ``echo`` the server does not send back what was published on this connection.

    Raises :class:`MirrorUnreachable`, :class:`MirrorUnsuitable`, :class:`MirrorClientMissing`.
    """
    try:
        from nats.errors import Error

        from hive_bus.mirror.publisher import Publisher
    except ModuleNotFoundError as problem:
        raise MirrorClientMissing(package="nats-py") from problem

    client = client or Publisher()
    connection = Connection(client, settings.url)

    async def failed(problem: Exception) -> None:
        """What ends a connection is told by `lost`; why none came about is said with the error."""
        connection.trouble = problem

    came, ended = False, asyncio.Event()

    async def closed() -> None:
        await connection.lost()
        ended.set()

    try:
        try:
            with cancellation_kept():
                await client.connect(
                    servers=settings.servers,
                    name=name,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_SECONDS,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    skip_subject_validation=True,
                    no_echo=not echo,
                    error_cb=failed,
                    closed_cb=closed,
                    disconnected_cb=connection.lost,
                    **_way_in(settings),
                )
        except ModuleNotFoundError as problem:
            raise MirrorClientMissing(package="nkeys") from problem
        except (Error, OSError, TimeoutError, ValueError) as problem:
            raise connection.unreachable(connection.trouble or problem) from problem
        came = True
        _suitable(connection)
        yield connection
    finally:
        try:
            # Where TLS could not begin, nats-py would wait for ever for the end of what never was.
            async with asyncio.timeout(CLOSE_SECONDS):
                if client.is_connected or client.is_connecting:
                    await client.close()
                elif came:
                    # A task of nats-py's closes what was lost: cut off by the end of the loop, it would leave a socket.
                    await ended.wait()
        except (Error, OSError, TimeoutError):
            pass  # it is gone already, which is what was wanted


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Keep a cancellation that nats-py loses: in a flush of a full buffer, and, by Python 3.11's ``wait_for``, with an answer."""
    here = asyncio.current_task()
    before = 0 if here is None else here.cancelling()
    yield
    if here is not None and here.cancelling() > before:
        raise asyncio.CancelledError


def _suitable(connection: Connection) -> None:
    version = connection.server_version
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if found < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        raise MirrorUnsuitable(
            url=connection.url, reason=f"it is version {version}", advised=f"use nats-server {wanted} or newer"
        )
    if connection.max_payload < LEAST_PAYLOAD:
        reason = f"its messages hold {connection.max_payload} bytes"
        raise MirrorUnsuitable(
            url=connection.url, reason=reason, advised=f"set max_payload to {LEAST_PAYLOAD} or more, 1MB by default"
        )


def _way_in(settings: NatsSettings) -> dict[str, Any]:
    """What nats-py wants to know; passwords and tokens are read when they are needed, and kept nowhere."""
    options: dict[str, Any] = {}
    password = _secret("HIVE_NATS_PASSWORD", settings.password_file)
    token = _secret("HIVE_NATS_TOKEN", settings.token_file)
    if settings.user:
        options |= {"user": settings.user, "password": password}
    elif token:
        options["token"] = token
    if settings.creds is not None:
        options["user_credentials"] = str(settings.creds)
    if settings.nkey is not None:
        options["nkeys_seed"] = str(settings.nkey)
    if settings.tls_ca is not None or settings.tls_cert is not None:
        context = ssl.create_default_context(cafile=None if settings.tls_ca is None else str(settings.tls_ca))
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        options["tls"] = context
    return options


def _secret(variable: str, file: Path | None) -> str:
    return os.environ.get(variable) or ("" if file is None else file.read_text(encoding="utf-8").strip())
