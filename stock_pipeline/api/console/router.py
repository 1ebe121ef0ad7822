"""Every page of the console, and the files that pages load."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from stock_pipeline.api.console import (
    account_pages,
    alert_pages,
    audit_pages,
    backtest_pages,
    errors,
    link_pages,
    login_pages,
    model_pages,
    prediction_pages,
    quality_pages,
    role_pages,
    symbol_pages,
    task_pages,
    tool_pages,
    user_pages,
)
from stock_pipeline.api.console.rendering import STATIC

_PAGES = (
    login_pages,
    link_pages,
    account_pages,
    prediction_pages,
    symbol_pages,
    quality_pages,
    model_pages,
    backtest_pages,
    task_pages,
    alert_pages,
    user_pages,
    role_pages,
    audit_pages,
    tool_pages,
)


def install(app: FastAPI) -> None:
    """Give an application its pages; to be called after its error answers are installed."""
    for part in _PAGES:
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    errors.install(app)
