"""Risk of each symbol: the newest session, its history, and how the value at risk did."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading import tables
from stock_pipeline.api.reading.market import NO_RISK, RISK
from stock_pipeline.api.schemas_market import RangeQuery, RiskHistory, RiskPage, RiskQuery
from stock_pipeline.api.table_answers import CSV_CONTENT, NOT_MODIFIED, send, send_page
from stock_pipeline.config.tasks import Symbol

router = APIRouter(
    prefix="/api/risk",
    tags=["risk"],
    dependencies=[Depends(require("risk:read")), Depends(no_repeats)],
    responses={**NOT_MODIFIED, **problem_responses(404, 422, 503)},
)


@router.get(
    "",
    summary="Risk of all symbols in one session",
    response_class=Response,
    responses={200: {"model": RiskPage, "content": CSV_CONTENT}, **problem_responses(400, 410)},
)
def list_risk(request: Request, query: Annotated[RiskQuery, Query()]) -> Response:
    """Volatility, value at risk, expected shortfall and drawdown, from returns up to the session."""
    market = service(request).market
    newest = market.newest(RISK, NO_RISK)
    session = query.session or newest
    bounds = {"volatility": query.min_volatility, "var_95": query.min_var_95}
    conditions = [pl.col(name) >= least for name, least in bounds.items() if least is not None]
    by = [query.sort] if query.sort == "symbol" else [query.sort, "symbol"]
    found = tables.page(
        market.lake, RISK, query, NO_RISK,
        start=session, end=session, symbols=query.symbol,
        where=pl.all_horizontal(conditions) if conditions else None,
        by=by, descending=[query.order == "desc", *[False] * (len(by) - 1)],
    )  # fmt: skip
    if not found.total and not market.has_session(RISK, session):
        raise ProblemError(
            404, "session-not-found", f"there is no risk of the session {session}; the newest is {newest}"
        )
    more = {} if query.format == "csv" else {"session": session, "backtest": market.pooled()}
    return send_page(request, found, query.format, f"risk-{session}", **more)


@router.get(
    "/{symbol}",
    summary="Risk of one symbol over time",
    response_class=Response,
    responses={200: {"model": RiskHistory}},
)
def get_symbol_risk(
    request: Request,
    symbol: Annotated[Symbol, Path(description="one symbol", examples=["IBM"])],
    query: Annotated[RangeQuery, Query()],
) -> Response:
    """Each session's figures beside the return that followed, and the tests of the value at risk."""
    found = service(request).market.risk(symbol, query.start, query.end)
    return send(request, found, rows=len(found["history"]["session"]))
