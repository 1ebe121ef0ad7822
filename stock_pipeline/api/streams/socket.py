"""The conversation over one WebSocket: who is there, what is wanted, events, heartbeats, and why it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from fastapi import WebSocket
from fastapi.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect, WebSocketState

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.streams.connections import (
    BAD_MESSAGE,
    FORBIDDEN,
    SLOW,
    TOO_MANY,
    UNAUTHENTICATED,
    Connection,
    Connections,
    Ended,
    Revalidate,
)
from stock_pipeline.api.streams.following import Batch, Follower
from stock_pipeline.api.streams.hub import EventHub
from stock_pipeline.api.streams.items import STREAM
from stock_pipeline.api.streams.messages import Authenticate, Ping, Subscribe, parse
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.tasks import EventFilter

LOGIN_SECONDS = 5.0
HEARTBEAT_SECONDS = 20.0
MOST_MESSAGES, PER_SECONDS = 60, 60.0
"""Messages that a client may send in so many seconds."""

_CLOSE_SECONDS = 2.0
_LONGEST_REASON = 123
"""Bytes that a close frame has room for."""

_log = get_logger(__name__)

Authenticator = Callable[[Authenticate], Principal]


class SocketSession:
    """One WebSocket, from its first message to its end.

    Parameters
    ----------
    websocket
        Accepted already.
    hub
        The reader of events.
    connections
        All connections of the process.
    address
        Where it comes from.
    authenticate
        Finds out who is behind a first message; raises `AccessError`.
    revalidate
        See `connections.Connection`.
    """

    def __init__(
        self,
        websocket: WebSocket,
        hub: EventHub,
        connections: Connections,
        address: str,
        authenticate: Authenticator,
        revalidate: Revalidate,
    ) -> None:
        self._socket, self._hub, self._connections = websocket, hub, connections
        self._address, self._authenticate, self._revalidate = address, authenticate, revalidate
        self._heard: deque[float] = deque(maxlen=MOST_MESSAGES)
        self._turn = asyncio.Lock()
        """Messages are sent one after the other."""
        self._subscribed = asyncio.Event()

    async def serve(self) -> None:
        """Talk until either side ends it."""
        try:
            with self._connections.arriving(self._address):
                principal = await self._who()
            with self._connections.open(principal, self._address, self._revalidate) as connection:
                await self._talk(connection)
        except Ended as ended:
            await self._close(ended)
        except WebSocketDisconnect:
            return
        except Exception:
            _log.exception("a connection to the stream failed")
            await self._close(Ended(1011, "an unexpected error; the log of the service has it"))

    async def refuse(self, ended: Ended) -> None:
        """End it before anything is said."""
        await self._close(ended)

    async def _who(self) -> Principal:
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                first = parse(await self._hear())
        except TimeoutError as error:
            raise Ended(UNAUTHENTICATED, f"no log-in within {LOGIN_SECONDS:.0f} s") from error
        if not isinstance(first, Authenticate):
            raise Ended(UNAUTHENTICATED, 'the first message must be {"type": "authenticate", "token": ...}')
        try:
            principal = await run_in_threadpool(self._authenticate, first)
        except AccessError as error:
            code = TOO_MANY if error.status == 429 else UNAUTHENTICATED if error.status == 401 else FORBIDDEN
            raise Ended(code, f"{error.kind}: {error.what}") from error
        if not principal.may(STREAM):
            raise Ended(FORBIDDEN, f"{principal.name} lacks the permission {STREAM}")
        return principal

    async def _talk(self, connection: Connection) -> None:
        await self._hub.start()
        connection.follower = Follower(self._hub, None, EventFilter(), connection.readable)
        hello = {
            "type": "authenticated",
            "account": connection.principal.name,
            "newest": self._hub.newest,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
        }
        await self._say(connection, hello)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.create_task(self._listen(connection, connection.follower)),
            asyncio.create_task(self._send(connection, connection.follower)),
            asyncio.create_task(self._beat(connection)),
        ]
        try:
            await asyncio.wait([*tasks, connection.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(tasks)
        if connection.ended.done():
            raise connection.ended.result()
        for task in tasks:
            if not task.cancelled():
                task.result()

    # ---------------------------------------------------------------- what the client says
    async def _listen(self, connection: Connection, follower: Follower) -> None:
        while True:
            message = parse(await self._hear())
            if isinstance(message, Ping):
                await self._say(connection, {"type": "pong", "newest": self._hub.newest})
            elif isinstance(message, Subscribe):
                await self._subscribe(connection, follower, message)
            else:
                raise Ended(BAD_MESSAGE, "this connection is logged in already")

    async def _subscribe(self, connection: Connection, follower: Follower, message: Subscribe) -> None:
        owner = connection.principal.name if message.mine else None
        async with self._turn:  # what was wanted before is not sent after the answer
            newest = self._hub.newest
            start = newest if message.since is None and not self._subscribed.is_set() else message.since
            follower.change(EventFilter(frozenset(message.tasks), message.kinds, message.severities, owner), start)
            with connection.sending():
                await self._socket.send_text(_text({"type": "subscribed", "newest": newest}))
                if message.since is not None and message.since < newest:
                    await self._socket.send_text(_text({"type": "resumed", "from": message.since + 1, "to": newest}))
        self._subscribed.set()

    async def _hear(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        now = time.monotonic()
        if len(self._heard) == MOST_MESSAGES and now - self._heard[0] < PER_SECONDS:
            raise Ended(BAD_MESSAGE, f"more than {MOST_MESSAGES} messages in {PER_SECONDS:.0f} s")
        self._heard.append(now)
        text: str | None = message.get("text")
        if text is None:
            raise Ended(BAD_MESSAGE, "messages are text, not bytes")
        return text

    # ---------------------------------------------------------------- what the client is told
    async def _send(self, connection: Connection, follower: Follower) -> None:
        await self._subscribed.wait()
        while True:
            await self._give(connection, follower, await follower.next())

    async def _give(self, connection: Connection, follower: Follower, batch: Batch) -> None:
        async with self._turn:
            if not follower.holds(batch):  # the client wants something else by now
                return
            with connection.sending():
                if batch.gap is not None:
                    gap = batch.gap
                    await self._socket.send_text(
                        _text({"type": "gap", "reason": gap.reason, "since": gap.since, "next": gap.next})
                    )
                for item in batch.items:
                    await self._socket.send({"type": "websocket.send", "text": item.message})
            follower.done(batch)

    async def _beat(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._say(connection, {"type": "heartbeat", "newest": self._hub.newest})

    async def _say(self, connection: Connection, message: dict[str, Any]) -> None:
        async with self._turn:
            with connection.sending():
                await self._socket.send_text(_text(message))

    async def _close(self, ended: Ended) -> None:
        if self._socket.application_state == WebSocketState.DISCONNECTED:
            return
        reason = ended.reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        seconds = _CLOSE_SECONDS if ended.code == SLOW else 2 * _CLOSE_SECONDS
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(seconds):
                await self._socket.close(ended.code, reason)


async def stop(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # whoever wants it may still ask for it; here it is only seen


def _text(message: dict[str, Any]) -> str:
    return orjson.dumps(message).decode()
