"""The one reader of the event log in a process, and the newest events that it keeps for all connections together.

A connection has no queue of its own: it has a position, and takes what comes after it from here (or, when it is far
behind, from the database). So the memory of the process does not grow with slow clients.
"""

from __future__ import annotations

import asyncio
import contextlib

from stock_pipeline.api.streams.items import Item
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.tasks import EventLog

POLL_SECONDS = 0.2
BATCH = 200
"""Events that are read, and given to a connection, at a time."""

_FAILED_SECONDS = 1.0

_log = get_logger(__name__)


class EventHub:
    """Reads the event log once for everybody.

    Parameters
    ----------
    log
        The events.
    poll_seconds
        How often new events are looked for.
    keep, keep_bytes
        Newest events that are kept in memory, and their size at most.
    """

    def __init__(
        self, log: EventLog, *, poll_seconds: float = POLL_SECONDS, keep: int = 5_000, keep_bytes: int = 8_000_000
    ) -> None:
        self._log, self.poll_seconds = log, poll_seconds
        self._keep, self._keep_bytes = keep, keep_bytes
        self._kept: list[Item] = []
        self._bytes = 0
        self._newest = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[None] | None = None
        self._belong()

    def _belong(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin anew in an event loop; what was awaited in another one is of no use there."""
        self._loop, self._reader = loop, None
        self._starting = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._woken = asyncio.Event()
        self._history = asyncio.Semaphore(4)
        """Readings of old events at once: each occupies a thread."""

    @property
    def newest(self) -> int:
        """Number of the newest event that connections can have."""
        return self._newest

    @property
    def kept(self) -> tuple[int, int]:
        """Events in memory, and their size."""
        return len(self._kept), self._bytes

    async def start(self) -> None:
        """Begin to read; nothing happens where it has begun."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._belong(loop)
        async with self._starting:
            if self._reader is None or self._reader.done():
                self._kept, self._bytes = [], 0
                self._newest = max(0, await asyncio.to_thread(self._log.newest) - self._keep // 5)
                while await self._read():
                    pass
                self._reader = asyncio.create_task(self._follow(), name="event-hub")

    async def stop(self) -> None:
        """Stop reading."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    def wake(self) -> None:
        """Look for new events now."""
        self._woken.set()

    async def stirred(self) -> None:
        """Wait until there is something new, or somebody wants something else."""
        await self._stirred.wait()

    def stir(self) -> None:
        """Let all who wait look again."""
        stirred, self._stirred = self._stirred, asyncio.Event()
        stirred.set()

    async def after(self, position: int, limit: int = BATCH) -> list[Item]:
        """The next events after a position.

        Where the first of them does not follow the position, those in between are gone; where there is none, all are.
        """
        if position >= self._newest:
            return []
        first = self._newest - len(self._kept) + 1
        if self._kept and position + 1 >= first:
            start = position + 1 - first
            return self._kept[start : start + limit]
        until = self._newest
        async with self._history:
            items = await asyncio.to_thread(self._load, position, limit)
        return [item for item in items if item.sequence <= until]

    def _load(self, position: int, limit: int) -> list[Item]:
        return [Item(event) for event in self._log.after(position, limit=limit)]

    async def _follow(self) -> None:
        failing = False
        while True:
            try:
                more = await self._read()
                failing = False
            except Exception:
                if not failing:  # one line when it begins, not one a second
                    _log.exception("events could not be read")
                failing, more = True, False
            if not more:
                await self._pause(_FAILED_SECONDS if failing else self.poll_seconds)

    async def _read(self) -> bool:
        """Read one batch; whether there may be more."""
        self._woken.clear()
        items = await asyncio.to_thread(self._load, self._newest, BATCH)
        if not items:
            return False
        if items[0].sequence != self._newest + 1:
            self._kept.clear()
            self._bytes = 0
        self._kept.extend(items)
        self._bytes += sum(item.size for item in items)
        self._newest = items[-1].sequence
        self._trim()
        self.stir()
        return len(items) == BATCH

    def _trim(self) -> None:
        drop, size = 0, self._bytes
        while len(self._kept) - drop > self._keep or (size > self._keep_bytes and drop < len(self._kept)):
            size -= self._kept[drop].size
            drop += 1
        if drop:
            del self._kept[:drop]
            self._bytes = size

    async def _pause(self, seconds: float) -> None:
        # not `wait_for`: that loses a cancellation which comes together with the wake-up
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
