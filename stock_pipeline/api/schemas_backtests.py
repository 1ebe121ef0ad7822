"""Answers and questions about back-tests, strategies, and predictions that were asked for."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stock_pipeline.api.paging import PageQuery
from stock_pipeline.api.schemas_market import Columns

Origin = Literal["configured", "on_request"]


class BacktestQuery(PageQuery):
    """Which back-tests."""

    strategy: str | None = Field(None, min_length=1, max_length=100, description="only of this strategy")
    origin: Origin | None = Field(None, description="of the configured strategies, or those that people asked for")


class BacktestSummary(BaseModel):
    """One back-test in the list."""

    id: str = Field(examples=["sma_cross"])
    origin: Origin
    strategy: str = Field(examples=["sma_cross"])
    parameters: dict[str, Any] = Field(examples=[{"fast": 20, "slow": 100}])
    first_session: date
    last_session: date
    finished_at: datetime
    figures: dict[str, float | None] = Field(
        description="after costs; null where undefined", examples=[{"annual_return": 0.08, "sharpe": 0.61}]
    )


class BacktestPage(BaseModel):
    """One page of back-tests."""

    items: list[BacktestSummary]
    unreadable: list[str] = Field(description="ids on this page whose files are damaged", examples=[[]])
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])


class BacktestDetail(BaseModel):
    """One back-test with everything but its long tables."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(examples=["sma_cross"])
    origin: Origin
    finished_at: datetime
    strategy: str = Field(examples=["sma_cross"])
    description: str | None = None
    parameters: dict[str, Any]
    settings: dict[str, Any] | None = Field(None, description="costs, execution, portfolio, and what it was judged by")
    data_version: str | None = Field(None, examples=["market/validated_bars@12"])
    model_version: str | None = Field(None, examples=["lightgbm version 4"])
    first_session: date
    last_session: date
    symbols: list[str] | None = None
    metrics: dict[str, float | None] = Field(examples=[{"sharpe": 0.61, "max_drawdown": -0.23}])
    undefined: dict[str, str] = Field(description="metrics that are null, and why", examples=[{}])
    costs: dict[str, float | None] = Field(description="paid, by kind, in the currency")
    notes: list[str] | None = Field(None, description="what a reader must know about the method")
    links: dict[str, str] = Field(examples=[{"report": "/reports/backtests/sma_cross.html"}])


class TableQuery(BaseModel):
    """In which form."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "csv"] = Field("json", description="JSON with one array a column, or CSV")


class TradeQuery(PageQuery):
    """Which trades."""

    symbol: str | None = Field(None, min_length=1, max_length=64, description="only of this symbol")
    format: Literal["json", "csv"] = Field("json", description="JSON, or CSV with the next page in the Link header")


class BacktestTable(BaseModel):
    """A table of a back-test, one array a column."""

    id: str = Field(examples=["sma_cross"])
    columns: Columns
    undefined: dict[str, str] = Field(description="columns in which values are no numbers", examples=[{}])


class StrategyInfo(BaseModel):
    """A strategy that can be back-tested."""

    name: str = Field(examples=["sma_cross"])
    description: str = Field(examples=["Long while a fast moving average is above a slow one."])
    needs_predictions: bool = Field(description="whether it trades the champion's out-of-sample predictions")
    configured: bool = Field(description="whether the pipeline back-tests it by itself")
    parameters: dict[str, Any] = Field(
        description="configured values; the defaults where left out", examples=[{"fast": 20}]
    )
    parameters_schema: dict[str, Any] = Field(
        description="JSON schema of the parameters", examples=[{"type": "object", "properties": {}}]
    )
    problem: str | None = Field(description="why a configured strategy cannot be used now", examples=[None])
    newest_result: str | None = Field(description="id of its newest result", examples=["sma_cross"])


class RequestedPredictions(BaseModel):
    """Predictions that a task has made."""

    model_config = ConfigDict(extra="allow")

    task: str
    made_at: datetime
    predictions: list[dict[str, Any]] = Field(description="as those that are published, best rank first")
    unpredicted: list[dict[str, Any]] = Field(description="`symbol`, `reason`, `detail` of those without one")
