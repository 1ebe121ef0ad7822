"""Builds the service: routes, errors, headers, and what it does in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from stock_pipeline import __version__
from stock_pipeline.api import contract, cookies, problems
from stock_pipeline.api.auditing import ReadCounter
from stock_pipeline.api.background import background
from stock_pipeline.api.bodies import BodyGuard
from stock_pipeline.api.client import networks
from stock_pipeline.api.console import router as console
from stock_pipeline.api.middleware import PageCompression, RequestFrame
from stock_pipeline.api.ready import FastPath, warm
from stock_pipeline.api.routes import (
    account,
    alerts,
    audit,
    auth,
    backtests,
    events,
    health,
    models,
    oidc,
    predictions,
    proxied,
    quality,
    reference,
    reports,
    requested,
    risk,
    roles,
    strategies,
    symbols,
    tasks,
    users,
)
from stock_pipeline.api.service import Service
from stock_pipeline.api.streams.live import Live

DESCRIPTION = """Predictions of the newest session, with intervals, risk and lineage, as the pipeline published them;
the models, back-tests, tasks and events behind them; and who may see and do what.

Log in with `POST /api/auth/login` and send the access token as `Authorization: Bearer ...`, or make a key for a program
with `POST /api/account/keys`. Errors are problem documents (RFC 9457). Lists are paged by cursor.
"""

TAGS = [
    {"name": "predictions", "description": "What was published, and what is asked for"},
    {"name": "models", "description": "Versions, figures, cards, and which one is champion"},
    {"name": "backtests", "description": "Strategies on real prices after costs"},
    {"name": "quality", "description": "What became of the data, and why"},
    {"name": "risk", "description": "Volatility, value at risk, expected shortfall"},
    {"name": "symbols", "description": "Everything about one symbol"},
    {"name": "alerts", "description": "What is wrong now, and what was"},
    {"name": "reports", "description": "Pages for people"},
    {"name": "tasks", "description": "Work that was asked for, and how far it is"},
    {"name": "events", "description": "What happens, in order"},
    {"name": "authentication", "description": "Log-in, tokens, passwords, the second factor"},
    {"name": "account", "description": "One's own sessions and keys"},
    {"name": "users", "description": "Everybody's accounts"},
    {"name": "roles", "description": "Who may do what"},
    {"name": "audit", "description": "What was done, by whom"},
    {"name": "health", "description": "Whether the service lives and can answer"},
]


ROUTERS = (
    predictions.router,
    requested.router,
    models.router,
    backtests.router,
    strategies.router,
    quality.router,
    risk.router,
    symbols.router,
    alerts.router,
    reports.router,
    tasks.router,
    events.router,
    auth.router,
    account.router,
    users.router,
    roles.router,
    audit.router,
    proxied.router,
    health.router,
    reference.router,
    backtests.singular,
)
"""In the order of the OpenAPI document."""


def create_app(service: Service, *, poll_seconds: float = 1.0, allowed_hosts: Sequence[str] | None = None) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    service
        What the routes work with.
    poll_seconds
        How often a new publication is looked for.
    allowed_hosts
        Names that requests may address; any where ``None``.

    Returns
    -------
    fastapi.FastAPI
    """
    reads = ReadCounter()
    service.publications.prepare = warm
    app = FastAPI(
        title="stock_pipeline",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan(service, reads, poll_seconds),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # `reference` serves it
        redirect_slashes=False,
        openapi_tags=TAGS,
        generate_unique_id_function=contract.operation_id,
    )
    app.state.service = service
    app.state.publications = service.publications
    app.state.reads = reads
    app.state.live = Live(service.events, service.settings.access.limits.streams, service.settings.access.redis)
    app.state.cookie_name = cookies.name(service.settings)
    app.state.trusted_proxies = networks(service.settings.access.trusted_proxies)
    problems.install(app)
    for part in ROUTERS:
        app.include_router(part)
    if service.settings.access.oidc is not None:
        app.include_router(oidc.router)
    reference.mount_files(app)
    console.install(app)
    app.add_middleware(PageCompression, minimum_size=1000, compresslevel=5)
    app.add_middleware(BodyGuard)
    app.add_middleware(FastPath)
    app.add_middleware(RequestFrame, allowed_hosts=allowed_hosts, https_only=cookies.secure(service.settings))
    contract.complete(app)
    return app


def _lifespan(
    service: Service, reads: ReadCounter, poll_seconds: float
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs as long as the application does; its connections end with it."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        working = background(service, reads, poll_seconds=poll_seconds)
        await run_in_threadpool(working.__enter__)
        try:
            async with app.state.live.running():
                yield
        finally:
            await run_in_threadpool(working.__exit__, None, None, None)
            await run_in_threadpool(service.close)

    return running
