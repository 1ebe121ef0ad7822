"""The way to the web UIs of Dagster and MLflow: a link of the console, and where a proxy sends who may not pass."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from stock_pipeline.api.dependencies import service
from stock_pipeline.api.routes import proxied
from stock_pipeline.config import Settings, addresses

router = APIRouter(prefix="/tools", include_in_schema=False)


@router.get("/dagster/{below:path}", dependencies=proxied.DAGSTER)
def to_dagster(request: Request, below: str) -> Response:
    """Go to a page of Dagster's web UI."""
    return _to(request, addresses.dagster_page, below)


@router.get("/mlflow/{below:path}", dependencies=proxied.MLFLOW)
def to_mlflow(request: Request, below: str) -> Response:
    """Go to a page of MLflow's web UI."""
    return _to(request, addresses.mlflow_page, below)


def _to(request: Request, address: Callable[[Settings, str], str], below: str) -> Response:
    query = request.url.query
    return RedirectResponse(address(service(request).settings, below) + (f"?{query}" if query else ""), status_code=303)
