"""Data quality: scores, findings, and the rows that are not used."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.reading import tables
from stock_pipeline.api.reading.market import FINDINGS, NO_QUALITY, QUARANTINED, SCORES
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_market import (
    FindingQuery,
    QualitySummary,
    RangePageQuery,
    RangeQuery,
    ScoreQuery,
    ScoreSeries,
    SymbolQuality,
    TablePage,
)
from stock_pipeline.api.table_answers import CSV_CONTENT, NOT_MODIFIED, send, send_page
from stock_pipeline.config.tasks import Symbol

router = APIRouter(
    prefix="/api/quality",
    tags=["quality"],
    dependencies=[Depends(require("quality:read")), Depends(no_repeats)],
    responses={**NOT_MODIFIED, **problem_responses(404, 422, 503)},
)

SymbolPath = Annotated[Symbol, Path(description="one symbol", examples=["IBM"])]
PAGE = {200: {"model": TablePage, "content": CSV_CONTENT}, **problem_responses(400, 410)}


@router.get("", summary="Quality at a glance", response_class=Response, responses={200: {"model": QualitySummary}})
def get_quality(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Scores of the newest session in figures, what became of all rows, and what the rules found most."""
    parts = service(request)
    links = {
        "report": "/reports/quality.html" if (parts.reports / "quality.html").is_file() else None,
        "data_docs": "/reports/data_docs/index.html" if (parts.reports / "data_docs/index.html").is_file() else None,
    }
    return send(request, {**parts.market.quality(), "links": links}, rows=1)


@router.get("/sessions", summary="Scores over time", response_class=Response, responses={200: {"model": ScoreSeries}})
def get_quality_sessions(request: Request, query: Annotated[RangeQuery, Query()]) -> Response:
    """Mean, low and lowest score of each session."""
    found = service(request).market.score_series(query.start, query.end)
    return send(request, found, rows=len(found["sessions"]["session"]))


@router.get("/scores", summary="Scores by session and symbol", response_class=Response, responses={**PAGE})
def list_quality_scores(request: Request, query: Annotated[ScoreQuery, Query()]) -> Response:
    """The score of every bar, newest session first."""
    found = tables.page(
        service(request).lake, SCORES, query, NO_QUALITY, year=True,
        start=query.start, end=query.end, symbols=query.symbol,
        where=None if query.below is None else pl.col("score") < query.below,
        by=["session", "symbol"], descending=[True, False],
    )  # fmt: skip
    return send_page(request, found, query.format, "quality-scores")


@router.get("/findings", summary="What the rules found", response_class=Response, responses={**PAGE})
def list_quality_findings(request: Request, query: Annotated[FindingQuery, Query()]) -> Response:
    """Every finding with the value, what was expected and a message, newest session first."""
    conditions = [pl.col(name) == value for name in ("rule", "severity") if (value := getattr(query, name)) is not None]
    found = tables.page(
        service(request).lake, FINDINGS, query, NO_QUALITY,
        start=query.start, end=query.end, symbols=query.symbol,
        where=pl.all_horizontal(conditions) if conditions else None,
        by=["session", "symbol", "rule", "field"], descending=[True, False, False, False],
    )  # fmt: skip
    return send_page(request, found, query.format, "quality-findings")


@router.get("/quarantined", summary="Rows that are not used", response_class=Response, responses={**PAGE})
def list_quarantined(request: Request, query: Annotated[RangePageQuery, Query()]) -> Response:
    """Bars that no feature, model or back-test ever sees, each with the reason, newest session first."""
    found = tables.page(
        service(request).lake, QUARANTINED, query, NO_QUALITY,
        start=query.start, end=query.end, symbols=query.symbol,
        by=["session", "symbol"], descending=[True, False],
    )  # fmt: skip
    return send_page(request, found, query.format, "quarantined")


@router.get(
    "/{symbol}", summary="Quality of one symbol", response_class=Response, responses={200: {"model": SymbolQuality}}
)
def get_symbol_quality(request: Request, symbol: SymbolPath, query: Annotated[RangeQuery, Query()]) -> Response:
    """Scores, findings and quarantined rows of one symbol."""
    found = service(request).market.quality_of(symbol, query.start, query.end)
    return send(request, found, rows=len(found["scores"]["session"]))
