"""Strategies: which can be back-tested, with the schema of their parameters for forms."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from stock_pipeline.api.answers import json_answer
from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.paging import Page
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_backtests import StrategyInfo
from stock_pipeline.api.table_answers import NOT_MODIFIED
from stock_pipeline.core.backtesting import strategies
from stock_pipeline.core.errors import ConfigurationError

router = APIRouter(prefix="/api/strategies", tags=["backtests"], dependencies=[Depends(no_repeats)])


@router.get(
    "",
    summary="Strategies",
    response_class=Response,
    dependencies=[Depends(require("backtests:read"))],
    responses={200: {"model": Page[StrategyInfo]}, **NOT_MODIFIED, **problem_responses(422)},
)
def list_strategies(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Those that come with the platform and those that are configured, users' own among them."""
    parts = service(request)
    configured = {one.name: dict(one.parameters) for one in parts.settings.backtests.strategies}
    newest = parts.backtests.newest_of_strategies()
    names = [*configured, *(name for name in strategies.names() if name not in configured)]
    items = [_described(name, configured.get(name), newest.get(name)) for name in names]
    return json_answer({"items": items, "next_cursor": None}).respond(request)


def _described(name: str, configured: dict[str, Any] | None, newest: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "description": "",
        "needs_predictions": False,
        "configured": configured is not None,
        "parameters": configured or {},
        "parameters_schema": {},
        "problem": None,
        "newest_result": newest,
    }
    try:
        found = strategies.get(name)
    except ConfigurationError as error:
        return {**described, "problem": str(error)}
    return {
        **described,
        "description": found.description,
        "needs_predictions": found.needs_predictions,
        "parameters_schema": found.Parameters.model_json_schema(),
    }
