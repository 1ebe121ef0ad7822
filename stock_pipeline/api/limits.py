"""How often an address may try to come in, and how many passwords are compared at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from anyio.lowlevel import RunVar
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import service

NOBODY = Principal("anonymous", "anonymous")

PASSWORDS_AT_ONCE = 4
"""Requests with a password that are worked on at the same time; others wait without holding a thread."""

MOST_WAITING = 200
"""Requests with a password that may wait."""

_BUSY_SECONDS = 10.0

_turns: RunVar[anyio.Semaphore] = RunVar("turns of passwords")


async def log_in_limit(request: Request) -> None:
    """Count an attempt to come in; a dependency of routes that take a password, token or link.

    Raises
    ------
    AccessError
        429 ``rate-limited``.
    """
    await run_in_threadpool(service(request).access.limits.check, NOBODY, origin(request), "login")


async def password_turn() -> AsyncIterator[None]:
    """Wait for one's turn; a dependency of routes that hash a password, which takes long on purpose.

    The threads are those of all routes: a flood of log-ins that waited in them would stop every other request.

    Raises
    ------
    AccessError
        429 ``too-many-attempts`` where too many wait already.
    """
    turns = _turns.get(None)
    if turns is None:
        turns = anyio.Semaphore(PASSWORDS_AT_ONCE)
        _turns.set(turns)
    if turns.statistics().tasks_waiting >= MOST_WAITING:
        raise AccessError(
            429, "too-many-attempts", "too many log-ins at the same moment",
            fix=f"try again in {_BUSY_SECONDS:g} s", retry_after=_BUSY_SECONDS,
        )  # fmt: skip
    async with turns:
        yield
