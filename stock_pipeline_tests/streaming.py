"""Writers and clients of the event stream, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stock_pipeline.storage.tasks import EventLog, NewEvent

START = datetime(2026, 5, 4, 18, 30, tzinfo=UTC)
KINDS = ("task.state", "task.progress", "publication", "alert")
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


async def say(socket: ClientConnection, **message: Any) -> None:
    """Send a message."""
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection, seconds: float = 30) -> dict[str, Any]:
    """Receive a message."""
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), seconds))
    return message


async def entered(address: str, token: str, **subscription: Any) -> ClientConnection:
    """A connection that has logged in and, where asked, subscribed."""
    socket = await connect(socket_address(address))
    await say(socket, type="authenticate", token=token)
    assert (await hear(socket))["type"] == "authenticated"
    if subscription:
        await say(socket, type="subscribe", **subscription)
        assert (await hear(socket))["type"] == "subscribed"
    return socket


async def ending(socket: ClientConnection, seconds: float = 30) -> tuple[int, str]:
    """Close code and reason, after whatever else comes."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), seconds)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
