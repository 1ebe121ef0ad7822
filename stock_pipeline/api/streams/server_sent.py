"""The stream as Server-Sent Events: an answer that does not end."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.streams.connections import Connection, Connections, Ended, Revalidate
from stock_pipeline.api.streams.following import Follower
from stock_pipeline.api.streams.hub import EventHub
from stock_pipeline.api.streams.socket import HEARTBEAT_SECONDS, stop
from stock_pipeline.storage.tasks import EventFilter

RETRY_MILLISECONDS = 3000
"""After which a browser connects again."""


class EventStream(Response):
    """Sends events until the client goes, or may not be here any more.

    Parameters
    ----------
    hub, connections
        The reader, and all connections of the process.
    principal, address, revalidate
        See `connections.Connections.open`.
    since, wanted
        See `following.Follower`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        hub: EventHub,
        connections: Connections,
        principal: Principal,
        address: str,
        revalidate: Revalidate,
        since: int | None,
        wanted: EventFilter,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub, self._connections = hub, connections
        self._principal, self._address, self._revalidate = principal, address, revalidate
        self._since, self._wanted = since, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(
                    self._connections.open(self._principal, self._address, self._revalidate)
                )
            except Ended as refused:  # somebody else was quicker since the route looked
                await send({"type": "http.response.start", "status": 429, "headers": [(b"retry-after", b"30")]})
                await send({"type": "http.response.body", "body": refused.reason.encode()})
                return
            follower = Follower(self._hub, self._since, self._wanted, connection.readable)
            connection.follower = follower
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            tasks: list[asyncio.Future[Any]] = [
                asyncio.create_task(self._send(connection, follower, send)),
                asyncio.create_task(_gone(receive)),
            ]
            try:
                await asyncio.wait([*tasks, connection.ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                blocked = connection.blocked
                await stop(tasks)
            ended = connection.ended.result() if connection.ended.done() else None
            try:
                for task in tasks:
                    if not task.cancelled():
                        task.result()
            except Ended as found:
                ended = ended or found
            if ended is not None and not blocked:
                # the reason is the last word; whoever takes nothing would not take that either
                words = orjson.dumps({"code": ended.code, "reason": ended.reason}).decode()
                await _write(send, f"event: end\ndata: {words}\n\n", more=False)

    async def _send(self, connection: Connection, follower: Follower, send: Send) -> None:
        with connection.sending():
            await _write(send, f"retry: {RETRY_MILLISECONDS}\n: from event {follower.position + 1} on\n\n")
        waiting = asyncio.ensure_future(follower.next())
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=HEARTBEAT_SECONDS)
                if not done:
                    with connection.sending():
                        await _write(send, ": heartbeat\n\n")
                    continue
                batch = waiting.result()
                with connection.sending():
                    if batch.gap is not None:
                        gap = batch.gap
                        words = orjson.dumps({"reason": gap.reason, "since": gap.since, "next": gap.next}).decode()
                        await _write(send, f"id: {gap.next - 1}\nevent: gap\ndata: {words}\n\n")
                    for item in batch.items:
                        await _write(send, item.server_sent)
                follower.done(batch)
                waiting = asyncio.ensure_future(follower.next())
        finally:
            waiting.cancel()


async def _write(send: Send, text: str, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
