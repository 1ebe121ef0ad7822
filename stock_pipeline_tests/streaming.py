"""Writers and clients of the event stream, for tests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine
from sqlalchemy.orm import Session
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stock_pipeline.storage.tasks import EventLog, NewEvent

START = datetime(2026, 5, 4, 18, 30, tzinfo=UTC)
KINDS = ("task.state", "task.progress", "publication", "alert")
SMALL_BUFFER = 65_536
"""Bytes that the system keeps for a client that does not take them."""

SEVERITIES = ("info", "warning", "error", "critical")


def planned(number: int, owners: Iterable[str] = ("ada",), size: int = 0) -> NewEvent:
    """The event of a number: all that it holds follows from it."""
    names = list(owners)
    kind = KINDS[number % 4]
    of_task = kind.startswith("task.")
    return NewEvent(
        source_key=f"test:{number}",
        kind=kind,
        at=START,
        severity=SEVERITIES[(number // 4) % 4],
        task_id=f"task-{number % 23}" if of_task else None,
        task_kind="backtest" if of_task else None,
        owner=names[number % len(names)] if of_task else None,
        state="running" if of_task else None,
        data={"number": number, **({"text": "x" * size} if size else {})},
    )


def append(engine: Engine, events: Iterable[NewEvent]) -> None:
    """Append events in one transaction."""
    log = EventLog(engine)
    with Session(engine) as session, session.begin():
        for event in events:
            assert log.append(session, event) is not None


def socket_address(address: str) -> str:
    """Address of the WebSocket of a service."""
    return f"{address.replace('http', 'ws', 1)}/ws/events"


async def say(connection: ClientConnection, **message: Any) -> None:
    """Send a message."""
    await connection.send(json.dumps(message))


async def hear(connection: ClientConnection, seconds: float = 120) -> dict[str, Any]:
    """Receive a message that is not a heartbeat; of those there may be some on a busy machine."""
    async with asyncio.timeout(seconds):  # all together: heartbeats would go on for ever
        while True:
            message = await hear_any(connection, seconds)
            if message["type"] != "heartbeat":
                return message


async def hear_any(connection: ClientConnection, seconds: float = 120) -> dict[str, Any]:
    """Receive a message."""
    message: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), seconds))
    return message


async def entered(address: str, token: str, **subscription: Any) -> ClientConnection:
    """A connection that has logged in and, where asked, subscribed."""
    # no pings of its own: while a test takes no messages, it would not take the answers either, and end the connection
    connection = await connect(socket_address(address), proxy=None, open_timeout=120, ping_interval=None)
    await say(connection, type="authenticate", token=token)
    assert (await hear(connection))["type"] == "authenticated"
    if subscription:
        await say(connection, type="subscribe", **subscription)
        assert (await hear(connection))["type"] == "subscribed"
    return connection


async def deaf(address: str, token: str) -> ClientConnection:
    """A connection that has logged in, asked for everything, and takes next to nothing of it."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)  # else the system takes megabytes in its place
    small.setblocking(False)
    parts = urlsplit(address)
    await asyncio.get_running_loop().sock_connect(small, (parts.hostname, parts.port))
    connection = await connect(
        socket_address(address), sock=small, proxy=None, compression=None, max_queue=1, open_timeout=120,
        ping_interval=None,
    )  # fmt: skip
    await say(connection, type="authenticate", token=token)
    await hear(connection)
    await say(connection, type="subscribe", since=0)
    return connection


async def ending(connection: ClientConnection, seconds: float = 120) -> tuple[int, str]:
    """Close code and reason, after whatever else comes."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                await connection.recv()
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
