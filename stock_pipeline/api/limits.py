"""How often an address may try to come in."""

from __future__ import annotations

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import service

NOBODY = Principal("anonymous", "anonymous")


async def log_in_limit(request: Request) -> None:
    """Count an attempt to come in; a dependency of routes that take a password, token or link.

    Raises
    ------
    AccessError
        429 ``rate-limited``.
    """
    await run_in_threadpool(service(request).access.limits.check, NOBODY, origin(request), "login")
