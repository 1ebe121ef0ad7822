"""The newest publication: sorted, filtered, searched, and paged so that thousands of symbols stay fast."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
import orjson
import polars as pl
from fastapi import APIRouter, Depends, Query, Request, Response

from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.console.charts import interval, sparkline
from stock_pipeline.api.console.formatting import words
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import publications, require, service
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import SORTABLE, Publication

router = APIRouter(include_in_schema=False)

ROWS = 50
SPARK_SESSIONS = 60
_BARS = "market/validated_bars"

_log = get_logger(__name__)


@router.get("/", dependencies=[Depends(require("predictions:read"))])
def newest(
    request: Request,
    q: Annotated[str, Query(max_length=64)] = "",
    confidence: Annotated[str, Query(max_length=10)] = "",
    sort: str = "rank",
    order: str = "asc",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """Show one page of the current publication, or why there is none."""
    cache = publications(request)
    publication = cache.current
    if publication is None:
        return page(request, "predictions/none.html", title="Predictions", section="predictions", problem=cache.problem)
    sort = sort if sort in SORTABLE else "rank"
    descending = order == "desc"
    least = _share(confidence)
    chosen = _chosen(publication, q.strip(), least, sort, descending)
    asked = {"q": q.strip(), "confidence": confidence.strip(), "sort": sort, "order": order}
    pager = Pager.of("/", {k: v for k, v in asked.items() if v and (k, v) not in _DEFAULTS}, number, ROWS, len(chosen))
    rows = publication.frame[chosen[pager.first : pager.first + ROWS].tolist()].to_dicts()
    count_rows(request, len(rows))
    return page(
        request,
        "predictions/list.html",
        title="Predictions",
        section="predictions",
        publication=publication,
        summary=_summary(publication),
        age=words(publication.age(cache.clock())),
        days_old=(cache.clock().date() - publication.session).days,
        problem=cache.problem,
        currency=_currency(publication),
        rows=_drawn(rows, _sparklines(service(request).lake, publication, [row["symbol"] for row in rows])),
        asked=asked,
        fault=None if least is not None or not confidence.strip() else "a number from 0 to 100",
        sorting=lambda column, first="asc": _sorting(asked, column, first),
        pager=pager,
    )


@router.get("/unpredicted", dependencies=[Depends(require("predictions:read"))])
def unpredicted(request: Request, number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1) -> Response:
    """Show the symbols without a prediction, and why."""
    publication = publications(request).current
    known = () if publication is None else publication.unpredicted
    pager = Pager.of("/unpredicted", {}, number, ROWS, len(known))
    rows = [orjson.loads(row) for row in known[pager.first : pager.first + ROWS]]
    count_rows(request, len(rows))
    return page(
        request,
        "predictions/unpredicted.html",
        title="Symbols without a prediction",
        section="predictions",
        crumbs=[("Predictions", "/"), ("Without a prediction", None)],
        publication=publication,
        rows=rows,
        pager=pager,
    )


_DEFAULTS = {("sort", "rank"), ("order", "asc")}


def _share(percent: str) -> float | None:
    """What somebody typed as per cent, as a share; ``None`` where it is none."""
    try:
        value = float(percent.strip().removesuffix("%").replace(",", "."))
    except ValueError:
        return None
    return value / 100 if 0 <= value <= 100 else None


def _chosen(publication: Publication, text: str, confidence: float | None, sort: str, descending: bool) -> np.ndarray:
    positions = publication.select(min_confidence=confidence, sort=sort, descending=descending)
    if not text:
        return positions
    symbols = publication.frame["symbol"].str.to_lowercase().str.contains(text.lower(), literal=True)
    return positions[symbols.to_numpy()[positions]]


def _sorting(asked: dict[str, str], column: str, first: str) -> dict[str, str]:
    """Address that sorts by a column (again: the other way round), and how the column is sorted now."""
    current = asked["sort"] == column
    turned = {"asc": "desc", "desc": "asc"}
    order = turned.get(asked["order"], "asc") if current else first
    query = {k: v for k, v in {**asked, "sort": column, "order": order}.items() if v}
    state = "" if not current else "descending" if asked["order"] == "desc" else "ascending"
    return {"path": "/?" + urlencode(query), "state": state}


def _summary(publication: Publication) -> dict[str, Any]:
    kept: dict[str, Any] | None = publication.derived.get("console-summary")
    if kept is None:
        frame = publication.frame
        levels = frame["fallback_level"].fill_null(0).cast(pl.Int64)
        models = frame.select("model_name", "model_version").drop_nulls().unique().rows()
        kept = {
            "fallbacks": int((levels > 0).sum()),
            "models": sorted(models),
            "rising": int((frame["expected_return"] > 0).sum()),
            "horizons": sorted(frame["horizon"].drop_nulls().unique().to_list()),
            "confidence": frame["confidence"].median(),
        }
        publication.derived["console-summary"] = kept
    return kept


def _currency(publication: Publication) -> str | None:
    """The currency of all prices, where they share one."""
    known = publication.frame["currency"].drop_nulls().unique().to_list()
    return known[0] if len(known) == 1 else None


def _drawn(rows: list[dict[str, Any]], sparks: dict[str, str]) -> list[dict[str, Any]]:
    bounds = [abs(row[name]) for row in rows for name in ("lower", "upper") if row[name] is not None]
    reach = max(bounds, default=0.0)
    for row in rows:
        row["bar"] = interval(row["lower"], row["expected_return"], row["upper"], reach)
        row["spark"] = sparks.get(row["symbol"], "")
    return rows


def _sparklines(lake: Lake, publication: Publication, symbols: list[str]) -> dict[str, str]:
    """Closing prices of the last sessions of these symbols, as points of a line; each is made once a publication."""
    kept: dict[str, str] = publication.derived.setdefault("console-sparklines", {})
    absent = [symbol for symbol in symbols if symbol not in kept]
    if absent:
        try:
            kept.update({**dict.fromkeys(absent, ""), **_lines(lake, publication, absent)})
        except PipelineError as error:
            _log.warning("no sparklines", problem=str(error))
    return kept


def _lines(lake: Lake, publication: Publication, symbols: list[str]) -> dict[str, str]:
    if not lake.exists(_BARS):
        return {}
    start = publication.session - timedelta(days=SPARK_SESSIONS * 3 // 2)
    columns = ["symbol", "session", "close", "adj_factor"]
    bars = lake.read(_BARS, start=start, end=publication.session, symbols=symbols, columns=columns)
    closes = (
        bars.with_columns(close=pl.col("close") * pl.col("adj_factor").fill_null(1.0))
        .filter(pl.col("close").is_finite())
        .group_by("symbol", maintain_order=True)
        .agg(pl.col("close").tail(SPARK_SESSIONS))
    )
    return {symbol: sparkline(values) for symbol, values in closes.iter_rows()}
