"""Symbols: which there are, and everything about one of them."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api import paging
from stock_pipeline.api.dependencies import no_repeats, principal, publications, require, service
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.schemas_market import RangeQuery, SymbolDetail, SymbolLine, SymbolQuery
from stock_pipeline.api.table_answers import NOT_MODIFIED, send
from stock_pipeline.config.tasks import Symbol

router = APIRouter(
    prefix="/api/symbols",
    tags=["symbols"],
    dependencies=[Depends(require("predictions:read")), Depends(no_repeats)],
    responses={**NOT_MODIFIED, **problem_responses(404, 422, 503)},
)

_NEEDED = {"risk": "risk:read", "findings": "quality:read"}
_EMPTY = {
    "predictions": "nothing was published for this symbol within the range",
    "risk": "there is no risk of this symbol within the range",
    "prices": "there are no bars of this symbol within the range",
}


@router.get(
    "",
    summary="Symbols with bars",
    response_class=Response,
    responses={200: {"model": paging.Page[SymbolLine]}, **problem_responses(400)},
)
def list_symbols(request: Request, query: Annotated[SymbolQuery, Query()]) -> Response:
    """Every symbol of the market that has bars, in alphabetical order."""
    question = query.question()
    after = None if query.cursor is None else paging.decode(query.cursor, question, str)
    found = service(request).market.symbols()
    newest = pl.col("last_session") == pl.col("last_session").max()
    if query.active is not None:
        found = found.filter(newest if query.active else ~newest)
    if query.search is not None:
        wanted = pl.lit(query.search.casefold())
        found = found.filter(pl.col("symbol").str.to_lowercase().str.contains(wanted, literal=True))
    if after is not None:
        found = found.filter(pl.col("symbol") > after)
    publication = publications(request).current
    lines, following = paging.cut(
        found.head(query.limit + 1).to_dicts(), query.limit, question, lambda one: one["symbol"]
    )
    items = [
        {**line, "predicted": publication is not None and publication.has(symbol=line["symbol"])} for line in lines
    ]
    return send(request, {"items": items, "next_cursor": following}, rows=len(items))


@router.get(
    "/{symbol}",
    summary="Everything about one symbol",
    response_class=Response,
    responses={200: {"model": SymbolDetail}},
)
def get_symbol(
    request: Request,
    symbol: Annotated[Symbol, Path(description="one symbol", examples=["IBM"])],
    query: Annotated[RangeQuery, Query()],
) -> Response:
    """Prices, predictions against what happened, the interval, exceedances of the value at risk, and findings.

    Risk and findings are left empty for readers without `risk:read` and `quality:read`.
    """
    who = principal(request)
    lacking = {part: permission for part, permission in _NEEDED.items() if not who.may(permission)}
    found = service(request).market.symbol(
        symbol, query.start, query.end, with_risk="risk" not in lacking, with_quality="findings" not in lacking
    )
    publication = publications(request).current
    newest = None
    if publication is not None and publication.has(symbol=symbol):
        position = int(publication.select(symbols=[symbol])[0])
        newest = publication.detail(publication.frame["prediction_id"][position])
    parts = {name: len(next(iter(found[name].values()), [])) for name in _EMPTY}
    undefined = {name: reason for name, reason in _EMPTY.items() if not parts[name]}
    undefined |= {part: f"reading this needs the permission {permission}" for part, permission in lacking.items()}
    return send(request, {**found, "newest_prediction": newest, "undefined": undefined}, rows=sum(parts.values()))
