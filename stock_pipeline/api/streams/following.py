"""One client's way through the stream: every event that it wants once, in order, and a word where some are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stock_pipeline.api.streams.hub import EventHub
from stock_pipeline.api.streams.items import Item
from stock_pipeline.storage.tasks import EventFilter


@dataclass(frozen=True)
class Gap:
    """Events that cannot be given.

    Attributes
    ----------
    reason
        ``expired``: they are older than what is kept. ``unknown``: the client names events that this log never had.
    since
        Last event that the client has.
    next
        The event that the stream goes on with.
    """

    reason: str
    since: int
    next: int


@dataclass(frozen=True)
class Batch:
    """What comes next: perhaps a gap, then events.

    Attributes
    ----------
    start, end
        Positions before and after it.
    items, gap
        What the client is told.
    wanted
        What the client wanted when it was made up.
    """

    start: int
    end: int
    items: list[Item]
    gap: Gap | None
    wanted: EventFilter


class Follower:
    """Goes through the stream.

    Parameters
    ----------
    hub
        The reader.
    since
        Last event that the client has; ``None`` to begin with what comes from now on.
    wanted
        What it asked for.
    readable
        Gives the kinds of events that it may see at this moment.
    """

    def __init__(
        self, hub: EventHub, since: int | None, wanted: EventFilter, readable: Callable[[], Awaitable[frozenset[str]]]
    ) -> None:
        self._hub, self._readable = hub, readable
        self.wanted = wanted
        self.position = hub.newest if since is None else since

    @property
    def behind(self) -> int:
        """Events that the client has not got yet, whether it wants them or not."""
        return max(0, self._hub.newest - self.position)

    async def next(self) -> Batch:
        """Wait for what comes next; never empty.

        The position moves when `done` is told, so that nothing is lost when the client changes what it wants while a
        batch waits to be sent.
        """
        while True:
            start, wanted = self.position, self.wanted
            if start > self._hub.newest:
                newest = self._hub.newest
                return Batch(start, newest, [], Gap("unknown", start, newest + 1), wanted)
            while self._hub.newest <= start and self._goes_on(start, wanted):
                await self._hub.stirred()
            if not self._goes_on(start, wanted):
                continue
            newest = self._hub.newest
            items = await self._hub.after(start)
            following = items[0].sequence if items else newest + 1
            gap = Gap("expired", start, following) if following > start + 1 else None
            readable = await self._readable()
            chosen = [item for item in items if item.event.kind in readable and wanted.matches(item.event)]
            batch = Batch(start, items[-1].sequence if items else newest, chosen, gap, wanted)
            if chosen or gap is not None:
                return batch
            self.done(batch)

    def change(self, wanted: EventFilter, since: int | None) -> None:
        """Want something else from now on, or, with `since`, from there on."""
        self.wanted = wanted
        if since is not None:
            self.position = since
        self._hub.stir()

    def holds(self, batch: Batch) -> bool:
        """Whether a batch is still what comes next."""
        return self._goes_on(batch.start, batch.wanted)

    def _goes_on(self, start: int, wanted: EventFilter) -> bool:
        return start == self.position and wanted is self.wanted

    def done(self, batch: Batch) -> None:
        """Go on behind a batch, unless the client went elsewhere meanwhile."""
        if self.holds(batch):
            self.position = batch.end
