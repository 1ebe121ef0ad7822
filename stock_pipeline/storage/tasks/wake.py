"""Tells readers of the event log in other processes that there is something new, where Redis is configured.

It only saves them waiting: a word that is lost costs nothing, they look by themselves as well.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

CHANNEL = "stock_pipeline:events"
"""Where the word is spread."""

PAUSE_SECONDS = 5.0
"""After a failure Redis is left alone for so long."""


class Waker:
    """Spreads the word that there are new events.

    Parameters
    ----------
    address
        Of Redis; nothing is done where ``None``.
    """

    def __init__(self, address: str | None) -> None:
        self._redis: Any = None
        self._not_before = 0.0
        if address is not None:
            from redis import Redis

            self._redis = Redis.from_url(address, socket_timeout=1, socket_connect_timeout=1)

    def wake(self) -> None:
        """Say it; never fails."""
        if self._redis is None or time.monotonic() < self._not_before:
            return
        from redis.exceptions import RedisError

        self._not_before = time.monotonic() + PAUSE_SECONDS
        with contextlib.suppress(RedisError):
            self._redis.publish(CHANNEL, b"")
            self._not_before = 0.0

    def close(self) -> None:
        """Close the connection."""
        if self._redis is not None:
            self._redis.close()
