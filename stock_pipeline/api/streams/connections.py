"""The live connections of a process: how many an account may have, and when one must end.

Once a second every connection is looked at: whether its owner may still be here, and whether the client still takes
what it is sent. A client that takes nothing holds back nothing but itself, and not for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from stock_pipeline.access.places import source_of
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.streams.following import Follower
from stock_pipeline.api.streams.items import STREAM, readable_kinds
from stock_pipeline.observability.logging import get_logger

BAD_MESSAGE, UNAUTHENTICATED, FORBIDDEN, SLOW, TOO_MANY = 4400, 4401, 4403, 4408, 4429
"""Close codes of the WebSocket."""

MOST_BEHIND = 1_000
"""Events that a client may be behind while it does not take what it is sent."""

BLOCKED_SECONDS, LONGEST_BLOCKED_SECONDS = 2.0, 20.0
"""A sending that takes so long is not a hiccup; and one that takes so long ends the connection whatever is behind."""

MOST_CONNECTIONS = 5_000
"""Of a process."""

MOST_ARRIVING, MOST_ARRIVING_OF_ADDRESS = 500, 50
"""Clients that have not logged in yet, of a process and of one address: they take no place from those that have."""

_EVERY = 1.0

_log = get_logger(__name__)

Revalidate = Callable[[Principal], Awaitable[Principal]]


class Ended(Exception):
    """A connection must end.

    Parameters
    ----------
    code
        Close code.
    reason
        What the client is told.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Connection:
    """One client.

    Parameters
    ----------
    principal
        Who it is.
    revalidate
        Gives the same with what it may do now, or raises `AccessError`.
    """

    def __init__(self, principal: Principal, revalidate: Revalidate) -> None:
        self.principal, self._revalidate = principal, revalidate
        self.follower: Follower | None = None
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._sending_since: float | None = None

    async def readable(self) -> frozenset[str]:
        """Kinds of events that it may see now.

        Raises
        ------
        Ended
            It may not be here any more.
        """
        try:
            self.principal = await self._revalidate(self.principal)
        except AccessError as error:
            if error.status != 401:
                raise
            raise Ended(UNAUTHENTICATED, f"the log-in is over: {error.kind}") from error
        if not self.principal.may(STREAM):
            raise Ended(FORBIDDEN, f"the permission {STREAM} was withdrawn")
        return readable_kinds(self.principal)

    @property
    def blocked(self) -> bool:
        """Whether something was sent that the client has not taken."""
        return self._sending_since is not None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Time how long the client takes to take something."""
        self._sending_since = time.monotonic()
        try:
            yield
        finally:
            self._sending_since = None

    def end(self, ended: Ended) -> None:
        """End it; the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(ended)

    def taken(self, now: float) -> None:
        """End it where its client does not take what it is sent."""
        blocked = 0.0 if self._sending_since is None else now - self._sending_since
        behind = 0 if self.follower is None else self.follower.behind
        if blocked > LONGEST_BLOCKED_SECONDS or (blocked > BLOCKED_SECONDS and behind > MOST_BEHIND):
            self.end(Ended(SLOW, f"too slow: nothing was taken for {blocked:.0f} s, {behind} events behind"))

    async def permitted(self) -> None:
        """End it where its owner may not be here any more."""
        try:
            await self.readable()
        except Ended as ended:
            self.end(ended)


class Connections:
    """All connections of a process.

    Parameters
    ----------
    per_account
        How many an account may have at a time.
    """

    def __init__(self, per_account: int) -> None:
        self._per_account = per_account
        self._open: set[Connection] = set()
        self._of: Counter[str] = Counter()
        self._arriving: Counter[str] = Counter()
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        """Clients that have not logged in yet."""
        return self._arriving.total()

    @contextmanager
    def arriving(self, address: str) -> Iterator[None]:
        """Count a client that has not logged in yet, for the length of a ``with`` block.

        Raises
        ------
        Ended
            Too many of its address, or of the process, have not.
        """
        source = source_of(address)
        if self._arriving[source] >= MOST_ARRIVING_OF_ADDRESS:
            raise Ended(TOO_MANY, f"{MOST_ARRIVING_OF_ADDRESS} connections of this address have not logged in yet")
        if self.waiting >= MOST_ARRIVING:
            raise Ended(TOO_MANY, "too many connections of the service have not logged in yet; try again later")
        with _counted(self._arriving, source):
            yield

    def check(self, principal: Principal, address: str) -> None:
        """Refuse an account, or an address without one, that has as many connections as it may have.

        Raises
        ------
        Ended
            It has, or the process has.
        """
        if len(self._open) >= MOST_CONNECTIONS:
            raise Ended(TOO_MANY, "the service has too many connections; try again later")
        if self._of[_counted_as(principal, address)] >= self._per_account:
            who = "this address" if principal.account_id is None else principal.name
            raise Ended(TOO_MANY, f"{who} has {self._per_account} connections already; end one of them")

    @contextmanager
    def open(self, principal: Principal, address: str, revalidate: Revalidate) -> Iterator[Connection]:
        """Keep a connection for the length of a ``with`` block.

        Parameters
        ----------
        principal, revalidate
            See `Connection`.
        address
            Where it comes from; counts where there is no account.

        Raises
        ------
        Ended
            There are too many, see `check`.
        """
        self.check(principal, address)
        connection = Connection(principal, revalidate)
        self._open.add(connection)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="stream-watch")
        try:
            with _counted(self._of, _counted_as(principal, address)):
                yield connection
        finally:
            self._open.discard(connection)

    async def stop(self) -> None:
        """End all connections."""
        for connection in list(self._open):
            connection.end(Ended(1012, "the service stops"))
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _watch(self) -> None:
        failing = False
        while self._open:
            await asyncio.sleep(_EVERY)
            looked_at = list(self._open)
            for connection in looked_at:
                connection.taken(time.monotonic())
            try:
                for connection in looked_at:
                    await connection.permitted()
                failing = False
            except Exception:  # the database may be away: look again in a second
                if not failing:
                    _log.warning("the connections could not be looked at", exc_info=True)
                failing = True


def _counted_as(principal: Principal, address: str) -> str:
    return f"address:{source_of(address)}" if principal.account_id is None else principal.name


@contextmanager
def _counted(counts: Counter[str], key: str) -> Iterator[None]:
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
