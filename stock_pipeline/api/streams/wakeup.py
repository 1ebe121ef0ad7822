"""Hears from other processes that there are new events, where Redis is configured; see `storage.tasks.wake`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.tasks.wake import CHANNEL, PAUSE_SECONDS

_log = get_logger(__name__)


async def listen(address: str, wake: Callable[[], None], connected: Callable[[bool], None]) -> None:
    """Listen for ever; whatever fails is tried again after a pause.

    Parameters
    ----------
    address
        Of Redis.
    wake
        Called whenever somebody says that there is something new.
    connected
        Told whether Redis can be heard.
    """
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    failing = False
    while True:
        client = Redis.from_url(address, socket_connect_timeout=2)
        try:
            async with client, client.pubsub() as channel:
                await channel.subscribe(CHANNEL)
                connected(True)
                failing = False
                async for message in channel.listen():
                    if message["type"] in ("message", "subscribe"):  # what came before it listened may have been missed
                        wake()
        except (RedisError, OSError) as error:
            if not failing:
                _log.warning("Redis cannot be heard; new events are looked for instead", problem=type(error).__name__)
            failing = True
        finally:
            connected(False)
        await asyncio.sleep(PAUSE_SECONDS)
