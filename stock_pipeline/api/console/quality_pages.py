"""Data quality: scores over time, what the rules found, and the way to the reports."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.console.charts import Chart, Series
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.console.symbol_pages import SPANS
from stock_pipeline.api.dependencies import require, service
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.reading import tables
from stock_pipeline.api.reading.market import FINDINGS

router = APIRouter(include_in_schema=False, dependencies=[Depends(require("quality:read"))])

ROWS = 50


@router.get("/quality")
def quality_page(
    request: Request,
    rule: Annotated[str, Query(max_length=100)] = "",
    symbol: Annotated[str, Query(max_length=64)] = "",
    span: str = "1y",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """Show scores and findings."""
    parts = service(request)
    try:
        found = parts.market.quality()
    except ProblemError as error:
        if error.kind != "no-data":
            raise
        return page(request, "quality/none.html", title="Data quality", section="quality", problem=error.detail)
    span = span if span in SPANS else "1y"
    days = SPANS[span][1]
    start = date.min if days is None else found["session"] - timedelta(days=days)
    asked = {"rule": rule, "symbol": symbol.strip()}
    rows, pager = _findings(request, asked, number)
    count_rows(request, len(rows))
    return page(
        request,
        "quality/quality.html",
        title="Data quality",
        section="quality",
        found=found,
        chart=_scores(parts.market.score_series(start, None)["sessions"]),
        spans=[{"label": label, "path": f"?span={key}", "current": key == span} for key, (label, _) in SPANS.items()],
        rows=rows,
        asked=asked,
        pager=pager,
        report=(parts.reports / "quality.html").is_file(),
        data_docs=(parts.reports / "data_docs" / "index.html").is_file(),
    )


def _findings(request: Request, asked: dict[str, str], number: int) -> tuple[list[dict[str, Any]], Pager]:
    lake = service(request).lake
    symbols = [asked["symbol"]] if asked["symbol"] else None
    frame = tables.read_or_empty(lake, FINDINGS, symbols=symbols)
    if frame.is_empty():
        return [], Pager()
    if asked["rule"]:
        frame = frame.filter(frame["rule"] == asked["rule"])
    query = {name: value for name, value in asked.items() if value}
    pager = Pager.of("/quality", query, number, ROWS, frame.height)
    frame = frame.sort("session", "symbol", descending=[True, False])
    return tables.rows(frame.slice(pager.first, ROWS)), pager


def _scores(series: dict[str, list[Any]]) -> Chart | None:
    if not series["session"]:
        return None
    return Chart(
        "chart-scores",
        "Scores over time",
        "Mean quality score of each session, the level that one symbol in twenty is below, and the lowest score.",
        series["session"],
        [
            Series("Lowest", series["lowest"], "line", 2, dash=True),
            Series("5 % are below", series["low"], "line", 5),
            Series("Mean", series["mean"], "line", 1),
        ],
        "score",
        note="0 unusable, 100 no finding",
    )
