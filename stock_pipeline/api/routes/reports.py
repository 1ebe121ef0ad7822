"""The pages that the pipeline writes for people: quality, Data Docs, back-tests.

Pages with scripts come in a sandbox and run only the scripts that stand in their own file; Data Docs come without any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter

from stock_pipeline.api.answers import Answer, entity_tag
from stock_pipeline.api.dependencies import require, service
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.reading.files import Remembered, locate, scripted_policy, static_policy
from stock_pipeline.api.schemas import NoQuery

router = APIRouter(prefix="/reports", tags=["reports"])

QUALITY = [Depends(require("quality:read"))]
BACKTESTS = [Depends(require("backtests:read"))]

PAGES = frozenset({".html"})
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gif": "image/gif",
    ".ico": "image/x-icon",
    ".otf": "font/otf",
}
"""What Data Docs consist of."""

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}},
    304: {"description": "Not Modified: the tag sent is still right"},
    **problem_responses(404, 422),
}
Below = Annotated[str, PathParameter(max_length=1000, description="path of the file", examples=["index.html"])]

_remembered = Remembered(96_000_000)


@router.get(
    "/quality.html", summary="The quality report", response_class=Response, dependencies=QUALITY, responses=RESPONSES
)
def quality_report_page(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """What was caught, where, what was repaired, and what to do about it."""
    return scripted(request, locate(service(request).reports, "quality.html", PAGES))


@router.get(
    "/data_docs/{path:path}", summary="Data Docs", response_class=Response, dependencies=QUALITY, responses=RESPONSES
)
def data_docs_page(request: Request, path: Below, query: Annotated[NoQuery, Query()]) -> Response:
    """Expectations of the validated bars, and how they were met."""
    reports = service(request).reports
    found = locate(reports, f"data_docs/{path or 'index.html'}", frozenset(TYPES))

    def make(body: bytes) -> Answer:
        headers = {"Content-Security-Policy": static_policy()}
        return Answer(body, TYPES[found.suffix.lower()], entity_tag(body), headers)

    return _remembered.get(found, "static", make, lambda answer: answer.size).respond(request)


@router.get(
    "/backtests/{path:path}",
    summary="Report of a back-test",
    response_class=Response,
    dependencies=BACKTESTS,
    responses=RESPONSES,
)
def backtest_report_page(request: Request, path: Below, query: Annotated[NoQuery, Query()]) -> Response:
    """Equity and drawdown curves, monthly table, trades and costs."""
    return scripted(request, locate(service(request).reports, f"backtests/{path}", PAGES))


def scripted(request: Request, path: Path) -> Response:
    """Answer with a page that draws with its own scripts."""

    def make(body: bytes) -> Answer:
        headers = {"Content-Security-Policy": scripted_policy(body.decode("utf-8", "replace"))}
        return Answer(body, TYPES[".html"], entity_tag(body), headers)

    answer = _remembered.get(path, "scripted", make, lambda made: made.size)
    return answer.respond(request)
