"""Builds the service: routes, errors, headers, and the thread that notices new publications."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from stock_pipeline import __version__
from stock_pipeline.api import problems
from stock_pipeline.api.dependencies import Authenticate, anonymous
from stock_pipeline.api.middleware import PageCompression, RequestFrame
from stock_pipeline.api.routes import health, pages, predictions
from stock_pipeline.api.service import Service

DESCRIPTION = """Predictions of the newest session, with intervals, risk and lineage, as the pipeline published them.

The service computes nothing: it serves the publication that passed its checks, from memory. Errors are problem
documents (RFC 9457). Lists are paged by cursor, and every answer has an entity tag.
"""


def create_app(
    service: Service,
    *,
    poll_seconds: float = 1.0,
    allowed_hosts: Sequence[str] | None = None,
    authenticate: Authenticate = anonymous,
) -> FastAPI:
    """Build the application.

    Parameters
    ----------
    service
        What the routes work with.
    poll_seconds
        How often a new publication is looked for.
    allowed_hosts
        Names that requests may address; any where ``None``.
    authenticate
        Finds out who is asking.

    Returns
    -------
    fastapi.FastAPI
    """
    publications = service.publications

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        publications.refresh()
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(poll_seconds):
                publications.refresh()

        watcher = threading.Thread(target=watch, name="publication-watch", daemon=True)
        watcher.start()
        yield
        stopped.set()
        watcher.join(timeout=5)

    app = FastAPI(
        title="stock_pipeline",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_tags=[
            {"name": "predictions", "description": "What was published"},
            {"name": "health", "description": "Whether the service lives and can answer"},
        ],
    )
    app.state.service = service
    app.state.publications = publications
    app.state.authenticate = authenticate
    problems.install(app)
    for part in (predictions, health, pages):
        app.include_router(part.router)
    pages.mount_files(app)
    app.add_middleware(PageCompression, minimum_size=1000, compresslevel=5)
    app.add_middleware(RequestFrame, allowed_hosts=allowed_hosts)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the problem document into the OpenAPI document's components."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas["Problem"] = schema
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
