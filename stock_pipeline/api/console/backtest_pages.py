"""Back-tests: what there is, one in figures and curves, and a form that starts another."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import FormData

from stock_pipeline.api.console import parameter_forms as forms
from stock_pipeline.api.console.backtest_charts import curves, monthly_table
from stock_pipeline.api.console.forms import REFUSALS, Fields, apart, go, model, refusal, status_of, text
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.console.task_pages import shown, started
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.routes import backtests
from stock_pipeline.api.task_views import ACTIVE, start_task
from stock_pipeline.config.tasks import PRIORITIES, BacktestRequest
from stock_pipeline.core.backtesting import strategies
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.storage.tasks import TaskFilter

router = APIRouter(include_in_schema=False)

ROWS = 30
TRADES = 100
RUNNING = 20
HEADLINE = (
    "total_return", "annual_return", "sharpe", "max_drawdown", "volatility", "deflated_sharpe",
)  # fmt: skip


@router.get("/backtests", dependencies=backtests.READ)
def backtest_list(
    request: Request,
    strategy: Annotated[str, Query(max_length=100)] = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """List results, newest first, and back-tests that are under way."""
    parts, who = service(request), principal(request)
    found = parts.backtests.all()
    read = [(one, parts.backtests.readable(one)) for one in found] if strategy else [(one, None) for one in found]
    chosen = [one for one, content in read if not strategy or (content and content["strategy"] == strategy)]
    pager = Pager.of("/backtests", {"strategy": strategy} if strategy else {}, number, ROWS, len(chosen))
    newest = parts.events.newest()
    running = parts.tasks.store.list(TaskFilter(kinds=("backtest",), states=ACTIVE), limit=RUNNING)
    contents = [parts.backtests.readable(one) for one in chosen[pager.first : pager.first + ROWS]]
    return page(
        request,
        "backtests/list.html",
        title="Back-tests",
        section="backtests",
        rows=[content for content in contents if content is not None],
        unreadable=sum(content is None for content in contents),
        running=[shown(task, who) for task in running] if who.may("tasks:read") else [],
        newest=newest,
        strategy=strategy,
        names=parts.tasks.checks.strategy_names(),
        pager=pager,
    )


@router.get("/backtests/new", dependencies=backtests.CREATE)
def new_backtest(request: Request, strategy: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Ask for the parameters of a strategy."""
    return _form(request, strategy)


@router.post("/backtests/new", dependencies=backtests.CREATE)
async def start_backtest(request: Request, form: Fields) -> Response:
    """Start a back-test and go where it can be watched."""
    name = text(form, "strategy")
    try:
        fields = await apart(_fields, request, name)
    except REFUSALS as error:
        return await apart(_form, request, "", [refusal(error)], status_of(error))
    values, fields = forms.read(fields, form)
    if any(one.fault for one in fields):
        return await apart(_form, request, name, [Notice("Some values are not right.", "bad")], 422, fields, form)
    try:
        wanted = model(
            BacktestRequest,
            strategy=name,
            parameters=values,
            start=text(form, "start") or None,
            end=text(form, "end") or None,
        )
        priority = text(form, "priority")
        answer = await start_task(request, "backtest", wanted, priority if priority in PRIORITIES else "normal")  # type: ignore[arg-type]
    except REFUSALS as error:
        if isinstance(error, ProblemError):
            for one in error.errors or ():
                fields = _blamed(fields, str(one.get("message", "")))
        return await apart(_form, request, name, [refusal(error)], status_of(error), fields, form)
    return go(started(answer), done="task-created")


@router.get("/backtests/{backtest_id}", dependencies=backtests.READ)
def backtest_page(request: Request, backtest_id: backtests.ResultId) -> Response:
    """Show one result."""
    results = service(request).backtests
    found = backtests.result_of(request, backtest_id)
    content = results.summary(found)
    equity, trades = results.equity(found), results.trades(found)
    metrics = content["metrics"]
    return page(
        request,
        "backtests/backtest.html",
        title=forms.title(content["strategy"].rpartition(":")[2]),
        section="backtests",
        crumbs=[("Back-tests", "/backtests"), (found.id, None)],
        result=content,
        headline=[(name, metrics.get(name)) for name in HEADLINE],
        metrics=sorted(metrics.items()),
        currency=service(request).settings.market.currency,
        charts=curves(equity, service(request).settings.market.currency),
        months=monthly_table(results.monthly(found)),
        trades=trades.sort("opened", descending=True).head(TRADES).to_dicts(),
        trade_count=trades.height,
        costs={name: value for name, value in content["costs"].items() if value is not None},
        may_repeat=principal(request).may("backtests:create"),
    )


def _form(
    request: Request,
    strategy: str,
    notices: list[Notice] | None = None,
    status: int = 200,
    fields: list[forms.Input] | None = None,
    typed: FormData | None = None,
) -> Response:
    parts = service(request)
    names = parts.tasks.checks.strategy_names()
    strategy = strategy if strategy in names else names[0]
    found = strategies.get(strategy)
    chosen = parts.settings.backtests
    given: dict[str, Any] = {name: text(typed, name) if typed else "" for name in ("start", "end", "priority")}
    return page(
        request,
        "backtests/new.html",
        title="Start a back-test",
        section="backtests",
        crumbs=[("Back-tests", "/backtests"), ("New", None)],
        notices=notices or [],
        status=status,
        names=names,
        strategy=strategy,
        described=found.description,
        fields=_fields(request, strategy) if fields is None else fields,
        given=given,
        default_start=chosen.start,
        default_end=chosen.end,
        priorities=list(PRIORITIES),
    )


def _fields(request: Request, strategy: str) -> list[forms.Input]:
    parts = service(request)
    if strategy not in parts.tasks.checks.strategy_names():
        raise ProblemError(422, "invalid-parameters", f"there is no strategy {strategy!r}")
    configured = {one.name: dict(one.parameters) for one in parts.settings.backtests.strategies}
    try:
        schema = strategies.get(strategy).Parameters.model_json_schema()
    except ConfigurationError as error:
        raise ProblemError(422, "invalid-parameters", str(error)) from error
    return forms.inputs(schema, configured.get(strategy, {}))


def _blamed(fields: list[forms.Input], message: str) -> list[forms.Input]:
    """Put a refusal that names a parameter below its field."""
    return [
        replace(one, fault=message) if f"parameter {one.name.removeprefix(forms.PREFIX)} " in message else one
        for one in fields
    ]
