"""Answers and questions about quality, risk, symbols and alerts."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stock_pipeline.api.paging import PageQuery
from stock_pipeline.api.schemas import PredictionDetail
from stock_pipeline.config.tasks import Day, Symbol

Columns = dict[str, list[Any]]
Severity = Literal["info", "warning", "error", "critical"]


class RangeQuery(BaseModel):
    """A range of sessions."""

    model_config = ConfigDict(extra="forbid")

    start: Day | None = Field(None, alias="from", description="first session; a year before the last where absent")
    end: Day | None = Field(None, alias="to", description="last session; the newest where absent")


class RangePageQuery(PageQuery):
    """A page of the rows of a range of sessions."""

    symbol: list[Symbol] | None = Field(None, max_length=1000, description="only these symbols; may be repeated")
    start: Day | None = Field(None, alias="from", description="first session")
    end: Day | None = Field(None, alias="to", description="last session")
    format: Literal["json", "csv"] = Field("json", description="JSON, or CSV with the next page in the Link header")


class TablePage(BaseModel):
    """One page of a table."""

    total: int = Field(description="rows on all pages", examples=[1])
    items: list[dict[str, Any]] = Field(
        description="rows; a field that holds no number is null, and `undefined` of its row says why"
    )
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])


# -------------------------------------------------------------------- quality
class FindingQuery(RangePageQuery):
    """Which findings."""

    rule: str | None = Field(None, min_length=1, max_length=100, description="only of this rule")
    severity: Literal["quarantine", "repair", "warn"] | None = Field(None, description="only with this effect")


class ScoreQuery(RangePageQuery):
    """Which scores."""

    start: Day | None = Field(None, alias="from", description="first session; a year before the last where absent")
    below: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, description="only scores below this")


class RuleCount(BaseModel):
    """How often one rule found something."""

    rule: str = Field(examples=["extreme_return"])
    severity: str = Field(description="what happens to such a row", examples=["warn"])
    rows: int = Field(examples=[35])
    symbols: int = Field(examples=[7])
    newest: date
    description: str | None = Field(description="what the rule looks for")
    remedy: str | None = Field(description="what to do about it")


class QualityLinks(BaseModel):
    """Pages for people; null where they have not been written yet."""

    report: str | None = Field(examples=["/reports/quality.html"])
    data_docs: str | None = Field(examples=["/reports/data_docs/index.html"])


class QualitySummary(BaseModel):
    """Quality of the newest session, and what became of all rows."""

    session: date = Field(examples=["2023-06-30"])
    symbols: int = Field(description="with a bar in the session", examples=[9])
    mean: float | None = Field(description="mean score, 0 to 100", examples=[99.2])
    lowest: float | None = Field(examples=[87.5])
    low: int = Field(description="symbols whose score is below `low_below`", examples=[0])
    low_below: float = Field(examples=[80.0])
    rows: dict[str, int] = Field(
        description="what became of all rows", examples=[{"clean": 28225, "repaired": 3, "quarantined": 1}]
    )
    quarantined_in_session: int = Field(examples=[0])
    findings: int = Field(description="of all sessions", examples=[49])
    rules: list[RuleCount] = Field(description="most frequent first")
    links: QualityLinks


class ScoreSeries(BaseModel):
    """Scores of each session over all symbols."""

    model_config = ConfigDict(populate_by_name=True)

    start: date = Field(alias="from")
    end: date = Field(alias="to")
    sessions: Columns = Field(
        description="`session, symbols, mean, low` (one symbol in twenty is below) and `lowest`, one value a session"
    )


class SymbolQuality(BaseModel):
    """Quality of one symbol."""

    model_config = ConfigDict(populate_by_name=True)

    symbol: str
    start: date = Field(alias="from")
    end: date = Field(alias="to")
    newest: float | None = Field(description="newest score", examples=[100.0])
    mean: float | None = Field(description="over the range", examples=[99.4])
    scores: Columns = Field(description="`session, score`, one value a session")
    findings: list[dict[str, Any]] = Field(description="newest first, 200 at most")
    quarantined: list[dict[str, Any]] = Field(description="newest first, 200 at most")
    quarantined_rows: int = Field(description="in the range", examples=[0])


# ----------------------------------------------------------------------- risk
class RiskQuery(PageQuery):
    """Risk of which symbols, in which session and order."""

    symbol: list[Symbol] | None = Field(None, max_length=1000, description="only these symbols; may be repeated")
    session: Day | None = Field(None, description="exchange date; the newest where absent")
    min_volatility: float | None = Field(None, ge=0, le=1000, allow_inf_nan=False, description="at least, annualised")
    min_var_95: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="at least this value at risk")
    sort: Literal[
        "symbol", "volatility", "var_95", "var_99", "es_95", "es_99", "drawdown", "max_drawdown_252", "sharpe_252"
    ] = Field("symbol", description="order of the rows; rows without a value come last")
    order: Literal["asc", "desc"] = Field("asc", description="ascending or descending")
    format: Literal["json", "csv"] = Field("json", description="JSON, or CSV with the next page in the Link header")


class PooledBacktest(BaseModel):
    """How often the value at risk of all symbols together was exceeded."""

    level: float = Field(examples=[0.95])
    symbols: int = Field(examples=[9])
    observations: int = Field(examples=[26057])
    exceedances: int = Field(examples=[1305])
    exceedance_rate: float | None = Field(examples=[0.0501])
    expected_rate: float = Field(examples=[0.05])
    kupiec_p: float | None = Field(
        description="p-value of Kupiec's test; too small, as it takes symbols as independent", examples=[0.95]
    )


class RiskPage(TablePage):
    """Risk of one session."""

    session: date = Field(examples=["2023-06-30"])
    backtest: list[PooledBacktest] = Field(description="of the value at risk, over the whole history")


class RiskHistory(BaseModel):
    """Risk of one symbol over time, beside what followed."""

    model_config = ConfigDict(populate_by_name=True)

    symbol: str
    start: date = Field(alias="from")
    end: date = Field(alias="to")
    history: Columns = Field(
        description="the figures of each session, `next_return`, and whether it was worse than the value at risk"
    )
    undefined: dict[str, str] = Field(description="columns in which stored values are no numbers", examples=[{}])
    backtest: list[dict[str, Any]] = Field(
        description="exceedances over the whole history by level, with the tests of Kupiec and Christoffersen"
    )


# -------------------------------------------------------------------- symbols
class SymbolQuery(PageQuery):
    """Which symbols."""

    search: str | None = Field(None, min_length=1, max_length=64, description="part of the symbol, in any case")
    active: bool | None = Field(None, description="only symbols with (without) a bar in the newest session")


class SymbolLine(BaseModel):
    """One symbol with bars."""

    symbol: str = Field(examples=["IBM"])
    first_session: date
    last_session: date
    sessions: int = Field(examples=[5928])
    currency: str | None = Field(examples=["USD"])
    predicted: bool = Field(description="whether the current publication has it")


class SymbolOutcomes(BaseModel):
    """How the predictions of the range did whose outcome is known."""

    known: int = Field(examples=[240])
    coverage: float | None = Field(description="share of outcomes inside the interval", examples=[0.9])
    hit_rate: float | None = Field(description="share of right signs", examples=[0.52])
    mean_error: float | None = Field(description="mean of realised minus expected return", examples=[0.0004])


class SymbolDetail(BaseModel):
    """Everything about one symbol within a range of sessions, as arrays for charts."""

    model_config = ConfigDict(populate_by_name=True)

    symbol: str = Field(examples=["IBM"])
    first_session: date
    last_session: date
    sessions: int
    currency: str | None
    start: date = Field(alias="from")
    end: date = Field(alias="to")
    prices: Columns = Field(description="bars as they were traded, with `adjusted_close`")
    predictions: Columns = Field(description="with interval, and the realised return once it is known")
    outcomes: SymbolOutcomes
    risk: Columns = Field(description="with `next_return`, and where it was worse than the value at risk")
    findings: list[dict[str, Any]] = Field(description="of data quality, newest first, 200 at most")
    newest_prediction: PredictionDetail | None = Field(description="of the current publication, with its lineage")
    undefined: dict[str, str] = Field(description="parts that are empty, and why", examples=[{}])


# --------------------------------------------------------------------- alerts
class AlertQuery(PageQuery):
    """Which alerts."""

    state: Literal["open", "resolved", "all"] = Field("open", description="open: nobody has resolved them")
    severity: Severity | None = Field(None, description="only of this severity")
    kind: str | None = Field(None, min_length=1, max_length=60, description="only of this kind", pattern=r"^[^\x00]*$")


class Alert(BaseModel):
    """One alert."""

    id: int = Field(examples=[17])
    kind: str = Field(examples=["run_failed"])
    severity: str = Field(examples=["error"])
    title: str = Field(examples=["nightly failed"])
    body: str
    remedy: str | None = Field(description="what to do")
    fingerprint: str = Field(description="alerts of one problem share it")
    labels: dict[str, str] = Field(examples=[{"market": "us_tech"}])
    created_at: datetime
    resolved_at: datetime | None = Field(description="null while it is open")


class ResolveAlert(BaseModel):
    """Why an alert is over."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(
        None, min_length=3, max_length=1000, pattern=r"^[^\x00]*$", description="kept in the audit trail"
    )
