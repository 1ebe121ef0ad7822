"""The page of one symbol: its prediction and where that came from, its price, outcomes, risk and data quality."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response

from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.console import symbol_charts as charts
from stock_pipeline.api.console.charts import interval
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, publications, require, service
from stock_pipeline.storage.publication import Publication

router = APIRouter(include_in_schema=False)

SPANS: dict[str, tuple[str, int | None]] = {
    "1y": ("1 year", 366),
    "3y": ("3 years", 1096),
    "5y": ("5 years", 1827),
    "all": ("All", None),
}
FINDINGS = 20


@router.get("/symbols/{symbol:path}", dependencies=[Depends(require("predictions:read"))])
def symbol_page(
    request: Request, symbol: Annotated[str, Path(min_length=1, max_length=64)], span: str = "1y"
) -> Response:
    """Show everything that is known about one symbol."""
    market, who = service(request).market, principal(request)
    span = span if span in SPANS else "1y"
    line = market.known(symbol)
    days = SPANS[span][1]
    start = date.min if days is None else line["last_session"] - timedelta(days=days)
    with_risk, with_quality = who.may("risk:read"), who.may("quality:read")
    found = market.symbol(symbol, start, None, with_risk=with_risk, with_quality=with_quality)
    count_rows(request, len(found["prices"]["session"]))
    publication = publications(request).current
    prediction = _prediction(publication, symbol)
    return page(
        request,
        "symbols/symbol.html",
        title=symbol,
        section="predictions",
        crumbs=[("Predictions", "/"), (symbol, None)],
        symbol=symbol,
        line=line,
        prediction=prediction,
        bar=_bar(prediction),
        total=0 if publication is None else len(publication.rows),
        why_not=_why_not(publication, symbol) if prediction is None else None,
        last=_last(found["prices"]),
        spans=[{"label": label, "path": f"?span={key}", "current": key == span} for key, (label, _) in SPANS.items()],
        price=charts.price(symbol, found["prices"], line["currency"]),
        outcomes=charts.outcomes(symbol, found["predictions"]),
        facts=found["outcomes"],
        risk=charts.value_at_risk(symbol, found["risk"]) if with_risk else None,
        var_tests=market.var_backtest([symbol]) if with_risk else [],
        quality=charts.quality(symbol, found["prices"]) if with_quality else None,
        findings=found["findings"][:FINDINGS],
    )


def _prediction(publication: Publication | None, symbol: str) -> dict[str, Any] | None:
    if publication is None or not len(positions := publication.select(symbols=[symbol])):
        return None
    return publication.detail(publication.frame["prediction_id"][int(positions[0])])


def _bar(prediction: dict[str, Any] | None) -> Any:
    if prediction is None:
        return None
    bounds = [abs(prediction[name]) for name in ("lower", "upper") if prediction[name] is not None]
    return interval(prediction["lower"], prediction["expected_return"], prediction["upper"], max(bounds, default=0.0))


def _why_not(publication: Publication | None, symbol: str) -> dict[str, Any] | None:
    rows = [] if publication is None else [orjson.loads(row) for row in publication.unpredicted]
    return next((row for row in rows if row["symbol"] == symbol), None)


def _last(prices: charts.Columns) -> dict[str, Any]:
    return {name: values[-1] for name, values in prices.items()} if prices.get("session") else {}
