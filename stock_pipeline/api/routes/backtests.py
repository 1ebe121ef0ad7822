"""Back-tests: results of the configured strategies and of what people asked for, and asking for one."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import polars as pl
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from stock_pipeline.api import paging
from stock_pipeline.api.answers import json_answer
from stock_pipeline.api.dependencies import no_repeats, public, require, service
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.reading import tables
from stock_pipeline.api.reading.backtests import ID, Found
from stock_pipeline.api.reading.files import locate
from stock_pipeline.api.routes.reports import PAGES, RESPONSES, scripted
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_backtests import (
    BacktestDetail,
    BacktestPage,
    BacktestQuery,
    BacktestTable,
    TableQuery,
    TradeQuery,
)
from stock_pipeline.api.schemas_market import TablePage
from stock_pipeline.api.schemas_tasks import TaskInfo
from stock_pipeline.api.table_answers import CSV_CONTENT, NOT_MODIFIED, send, send_page
from stock_pipeline.api.task_views import ACCEPTED, start_task, task_json
from stock_pipeline.config.tasks import BacktestRequest
from stock_pipeline.storage.tasks import Task, TaskFilter

router = APIRouter(prefix="/api/backtests", tags=["backtests"], dependencies=[Depends(no_repeats)])
singular = APIRouter(include_in_schema=False, dependencies=[Depends(public)])

READ = [Depends(require("backtests:read"))]
CREATE = [Depends(require("backtests:create"))]

ResultId = Annotated[
    str, Path(pattern=ID, description="id of a result, or of the task that made it", examples=["sma_cross"])
]
_FOUND = {**NOT_MODIFIED, **problem_responses(404, 422, 503)}
_FIGURES = ("total_return", "annual_return", "volatility", "sharpe", "max_drawdown", "deflated_sharpe", "trades")
_SEARCHED = 1_000


@singular.api_route("/api/backtest", methods=["GET", "POST"])
@singular.api_route("/api/backtest/{rest:path}", methods=["GET", "POST"])
async def to_plural(request: Request, rest: str = "") -> Response:
    """Whoever asks for one back-test under the singular finds it under the plural."""
    query = request.scope["query_string"].decode("latin-1")
    address = f"{router.prefix}/{quote(rest)}" if rest else router.prefix
    return RedirectResponse(f"{address}?{query}" if query else address, 308)


@router.post(
    "",
    summary="Start a back-test",
    status_code=202,
    response_class=Response,
    dependencies=CREATE,
    responses={202: {"model": TaskInfo, **ACCEPTED[202]}, **problem_responses(409, 422, 429, 503)},
)
async def create_backtest(request: Request, wanted: BacktestRequest, query: Annotated[NoQuery, Query()]) -> Response:
    """Start a task that back-tests one strategy with one set of parameters.

    The id of the task leads to its result as well: `/api/backtests/{task id}`, once it has succeeded.
    """
    return await start_task(request, "backtest", wanted)


@router.get(
    "",
    summary="Back-tests, newest first",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": BacktestPage}, **NOT_MODIFIED, **problem_responses(400, 422, 503)},
)
def list_backtests(request: Request, query: Annotated[BacktestQuery, Query()]) -> Response:
    """The newest result of each configured strategy, and every result that somebody asked for."""
    results, question = service(request).backtests, query.question()
    after = None if query.cursor is None else tuple(paging.decode(query.cursor, question, tuple[int, str]))
    page: list[tuple[Found, dict[str, Any] | None]] = []
    for found in results.all():
        if (after is not None and found.position >= after) or (query.origin not in (None, found.origin)):
            continue
        content = results.readable(found)
        if query.strategy is not None and (content is None or content["strategy"] != query.strategy):
            continue
        page.append((found, content))
        if len(page) > query.limit:
            break
    page, following = paging.cut(page, query.limit, question, lambda one: one[0].position)
    items = [_line(content) for _, content in page if content is not None]
    unreadable = [found.id for found, content in page if content is None]
    return json_answer({"items": items, "unreadable": unreadable, "next_cursor": following}).respond(request)


@router.get(
    "/{backtest_id}",
    summary="One back-test",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": BacktestDetail}, **_FOUND},
)
def get_backtest(request: Request, backtest_id: ResultId, query: Annotated[NoQuery, Query()]) -> Response:
    """Metrics after costs, parameters, settings, costs paid, versions of data and model, and notes on the method."""
    found = result_of(request, backtest_id)
    address = f"/api/backtests/{found.id}"
    page = f"/reports/backtests/{'' if found.origin == 'configured' else 'on_request/'}{found.id}.html"
    links = {name: f"{address}/{name}" for name in ("equity", "trades", "monthly")} | {"report": page}
    return json_answer({**service(request).backtests.summary(found), "links": links}).respond(request)


@router.get(
    "/{backtest_id}/equity",
    summary="Curves of a back-test",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": BacktestTable, "content": CSV_CONTENT}, **_FOUND},
)
def get_backtest_equity(request: Request, backtest_id: ResultId, query: Annotated[TableQuery, Query()]) -> Response:
    """Equity, drawdown, exposure, costs, and what buying and holding and the benchmark had made, by session."""
    found = result_of(request, backtest_id)
    return _table(request, found, "equity", service(request).backtests.equity(found), query.format)


@router.get(
    "/{backtest_id}/monthly",
    summary="Monthly returns of a back-test",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": BacktestTable, "content": CSV_CONTENT}, **_FOUND},
)
def get_backtest_monthly(request: Request, backtest_id: ResultId, query: Annotated[TableQuery, Query()]) -> Response:
    """Compounded return of each calendar month."""
    found = result_of(request, backtest_id)
    return _table(request, found, "monthly", service(request).backtests.monthly(found), query.format)


@router.get(
    "/{backtest_id}/trades",
    summary="Trades of a back-test",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": TablePage, "content": CSV_CONTENT}, **_FOUND, **problem_responses(400)},
)
def list_backtest_trades(request: Request, backtest_id: ResultId, query: Annotated[TradeQuery, Query()]) -> Response:
    """Round trips with prices, costs and the reason of the exit, in the order of their opening."""
    found = result_of(request, backtest_id)
    question = {**query.question(), "id": found.id, "finished_at": found.finished_at.isoformat()}
    offset = 0 if query.cursor is None else paging.decode(query.cursor, question, tables.NonNegativeInt)
    trades = service(request).backtests.trades(found)
    if query.symbol is not None:
        trades = trades.filter(pl.col("symbol") == query.symbol)
    page = trades.slice(offset, query.limit)
    more = offset + page.height < trades.height
    following = paging.encode(question, offset + page.height) if more else None
    return send_page(request, tables.Slice(page, following, trades.height), query.format, f"trades-{found.id}")


@router.get(
    "/{backtest_id}/report", summary="Report of a back-test", response_class=Response, dependencies=READ,
    responses={**RESPONSES, **problem_responses(404, 422)},
)  # fmt: skip
def get_backtest_report(request: Request, backtest_id: ResultId, query: Annotated[NoQuery, Query()]) -> Response:
    """The page with curves, monthly table, trades and costs."""
    found = result_of(request, backtest_id)
    relative = found.path.relative_to(service(request).backtests.folder.resolve()).with_suffix(".html").as_posix()
    return scripted(request, locate(service(request).backtests.folder, relative, PAGES))


@router.get(
    "/{backtest_id}/progress",
    summary="The task of a back-test",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": TaskInfo}, **_FOUND},
)
def get_backtest_progress(request: Request, backtest_id: ResultId, query: Annotated[NoQuery, Query()]) -> Response:
    """How far the task is; its result names the id of the back-test."""
    task = _task(request, backtest_id)
    if task is None:
        detail = f"no task is known that made the back-test {backtest_id}; the pipeline may have made it by itself"
        raise ProblemError(404, "task-not-found", detail)
    return json_answer(task_json(task)).respond(request)


def result_of(request: Request, backtest_id: str) -> Found:
    """A result by its own id or that of its task."""
    results = service(request).backtests
    try:
        return results.find(backtest_id)
    except ProblemError:
        task = service(request).tasks.store.get(backtest_id)
        if task is None or task.kind != "backtest":
            raise
        if not task.result or "id" not in task.result:
            detail = f"the task {task.id} has no result, it is {task.state}; see /api/backtests/{task.id}/progress"
            raise ProblemError(404, "backtest-not-ready", detail) from None
        return results.find(str(task.result["id"]))


def _task(request: Request, backtest_id: str) -> Task | None:
    store = service(request).tasks.store
    task = store.get(backtest_id)
    if task is not None:
        return task if task.kind == "backtest" else None
    recent = store.list(TaskFilter(kinds=("backtest",)), limit=_SEARCHED)
    return next((one for one in recent if one.result and one.result.get("id") == backtest_id), None)


def _line(content: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "origin", "strategy", "parameters", "first_session", "last_session", "finished_at")
    return {
        **{name: content[name] for name in names},
        "figures": {name: content["metrics"].get(name) for name in _FIGURES},
    }


def _table(request: Request, found: Found, name: str, frame: pl.DataFrame, form: str) -> Response:
    if form == "csv":
        return send_page(request, tables.Slice(frame, None, frame.height), "csv", f"{name}-{found.id}")
    value = {"id": found.id, "columns": tables.columns(frame), "undefined": tables.undefined_columns(frame)}
    return send(request, value, rows=frame.height)
