"""Everything of the stream that a process has once: the reader, the connections, the ear for other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stock_pipeline.api.streams.connections import Connections
from stock_pipeline.api.streams.hub import POLL_SECONDS, EventHub
from stock_pipeline.api.streams.wakeup import listen
from stock_pipeline.storage.tasks import EventLog

HEARD_SECONDS = 1.0
"""How often new events are looked for while Redis tells of them."""


class Live:
    """The stream of one process.

    Parameters
    ----------
    log
        The events.
    per_account
        Connections that an account may have at a time.
    redis
        Address of Redis; none where ``None``.
    """

    def __init__(self, log: EventLog, per_account: int, redis: str | None = None) -> None:
        self.hub = EventHub(log)
        self.connections = Connections(per_account)
        self._redis = redis

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read for the length of a ``with`` block; connections end with it."""
        ear = None
        if self._redis is not None:
            ear = asyncio.create_task(listen(self._redis, self.hub.wake, self._hears), name="stream-wakeup")
        try:
            yield
        finally:
            if ear is not None:
                ear.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ear
            await self.connections.stop()
            await self.hub.stop()

    def _hears(self, whether: bool) -> None:
        self.hub.poll_seconds = HEARD_SECONDS if whether else POLL_SECONDS
