"""Settings of the vendors: what a configuration may say under ``source``.

Reading and fetching belong to ``stock_pipeline.sources``; here are only the words and their limits.
"""

from __future__ import annotations

import difflib
from datetime import date
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from stock_pipeline.core.parameters import Parameters

BAR_COLUMNS = ("symbol", "session", "open", "high", "low", "close", "volume", "amount", "currency", "known_at")
EXTRA_COLUMNS = ("adj_close", "factor", "split_ratio", "dividend")
PriceBasis = Literal["raw", "adjusted", "raw_with_adj_close", "raw_with_factors", "raw_with_events"]


def _known_keys(columns: dict[str, str], allowed: tuple[str, ...]) -> dict[str, str]:
    for key in columns:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(
                f"{key!r} is not a column of the platform{hint}; write ours: theirs; allowed: {', '.join(allowed)}"
            )
    return columns


class TableFile(Parameters):
    """One CSV or Parquet file beside the prices; the path alone is enough."""

    path: str = Field(min_length=1, description="CSV or Parquet file, absolute or from the configuration file's folder")
    columns: dict[str, str] = Field(default={}, description="ours: theirs, where their names differ")
    date_format: str | None = Field(
        default=None, description="such as %d/%m/%Y, epoch_s or epoch_ms; found by itself where unambiguous"
    )
    symbol: str | None = Field(default=None, description="keep only the rows of this symbol (an index among several)")

    @model_validator(mode="before")
    @classmethod
    def _path_is_enough(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class FilesSource(Parameters):
    """A folder of CSV or Parquet files, or one file, with one row a symbol and session."""

    kind: Literal["files"] = "files"
    path: str = Field(min_length=1, description="file or folder, absolute or from the configuration file's folder")
    glob: str | None = Field(
        default=None, description="such as *.parquet or bars/*.csv; all CSV and Parquet files by default"
    )
    columns: dict[str, str] = Field(
        default={},
        description="ours: theirs, such as {symbol: ticker, session: date}; usual names are found by themselves",
    )
    symbol_from: Literal["column", "filename"] = Field(default="column", description="where the symbol is written")
    date_format: str | None = Field(
        default=None, description="such as %d/%m/%Y, epoch_s or epoch_ms; found by itself where unambiguous"
    )
    timezone: str | None = Field(
        default=None, description="time zone of timestamps without one; the exchange's by default"
    )
    prices: PriceBasis = Field(
        default="raw",
        description="raw (no corporate actions known), adjusted (already), raw_with_adj_close, raw_with_factors, "
        "raw_with_events (splits and dividends in the same rows or in the events file)",
    )
    dividends: Literal["total_return", "price_relative"] = Field(
        default="total_return", description="how dividends enter the factor of raw_with_events"
    )
    factor_convention: Literal["multiply", "divide"] = Field(
        default="multiply", description="adjusted = raw x factor, or raw / factor"
    )
    factor_tolerance: float = Field(
        default=1e-5,
        ge=0,
        lt=0.1,
        description="relative change of adj_close / close, or of the factor, that is only rounding",
    )
    events: TableFile | None = Field(default=None, description="symbol, session (ex-date), split_ratio, dividend")
    membership: TableFile | None = Field(default=None, description="symbol, start, end of the point-in-time universe")
    benchmark: TableFile | None = Field(default=None, description="session and close of the market benchmark")
    currency: str | None = Field(
        default=None, pattern=r"^[A-Z]{3}$", description="ISO 4217 code; the market's by default"
    )
    separator: str | None = Field(default=None, min_length=1, max_length=1, description="of CSV files; found by itself")
    decimal_comma: bool = Field(default=False, description="12,5 instead of 12.5")
    encoding: str = Field(default="utf-8", description="of CSV files, such as utf-8, gbk or latin-1")
    null_values: tuple[str, ...] = Field(
        default=("", "NA", "N/A", "#N/A", "null", "NULL", "None", "-", "--"), description="texts that mean no value"
    )

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known_keys(value, (*BAR_COLUMNS, *EXTRA_COLUMNS))

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError) as error:
                raise ValueError(f"{value!r} is not a time zone; write an IANA name such as Asia/Tokyo") from error
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError as error:
            raise ValueError(f"{value!r} is not a text encoding; write one such as utf-8, gbk or latin-1") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.symbol_from == "filename" and "symbol" in self.columns:
            raise ValueError("symbol_from: filename and columns: {symbol: ...} contradict each other; keep one")
        if self.events is not None and self.prices != "raw_with_events":
            raise ValueError(f"events need prices: raw_with_events; prices is {self.prices!r}")
        tables = (
            ("events", self.events, ("symbol", "session", "split_ratio", "dividend")),
            ("membership", self.membership, ("symbol", "start", "end")),
            ("benchmark", self.benchmark, ("symbol", "session", "close")),
        )
        for name, table, allowed in tables:
            if table is not None:
                try:
                    _known_keys(table.columns, allowed)
                except ValueError as error:
                    raise ValueError(f"{name}.columns: {error}") from error
        return self


class _NetworkSource(Parameters):
    """What every network vendor can be told."""

    start: date = Field(default=date(2000, 1, 1), description="first session to fetch; factors are anchored there")
    requests_per_minute: float = Field(default=60.0, gt=0, le=6000, description="upper limit of the request rate")
    retries: int = Field(default=4, ge=0, le=10, description="further attempts after a failure that may pass")
    retry_wait_seconds: float = Field(
        default=2.0, ge=0, le=300, description="wait before the first retry; doubles each time"
    )
    timeout_seconds: float = Field(default=30.0, gt=0, le=600, description="of one request")
    lookback_days: int = Field(
        default=15, ge=0, le=3650, description="days before the asked range that are fetched again to notice revisions"
    )
    currency: str | None = Field(
        default=None, pattern=r"^[A-Z]{3}$", description="ISO 4217 code, where the vendor states none"
    )
    membership: TableFile | None = Field(default=None, description="symbol, start, end of the point-in-time universe")


class YFinanceSource(_NetworkSource):
    """Yahoo's chart data through the yfinance package (optional extra ``yfinance``)."""

    kind: Literal["yfinance"] = "yfinance"
    symbols: tuple[str, ...] = Field(min_length=1, description="Yahoo symbols, such as AAPL or 7203.T")
    benchmark: str | None = Field(default=None, description="Yahoo symbol of the benchmark, such as ^GSPC")
    dividends: Literal["total_return", "price_relative"] = Field(
        default="total_return", description="how dividends enter the factor"
    )
    base_url: str | None = Field(
        default=None, pattern=r"^https?://", description="send Yahoo's requests there (a mirror)"
    )


class AkShareSource(_NetworkSource):
    """Chinese A shares: bars through the akshare package (optional extra ``akshare``), factors from Sina."""

    kind: Literal["akshare"] = "akshare"
    symbols: tuple[Annotated[str, Field(pattern=r"^\d{6}$")], ...] = Field(
        min_length=1, description="six-digit codes in quotes, such as '600000' or '000001'"
    )
    factors_url: str = Field(
        default="https://finance.sina.com.cn/realstock/company/{symbol}/hfq.js",
        pattern=r"^https?://.*\{symbol\}",
        description="where the adjustment factors are; {symbol} becomes sh600000 or sz000001",
    )


SourceSettings = Annotated[FilesSource | YFinanceSource | AkShareSource, Field(discriminator="kind")]
"""What stands under ``source`` in a configuration; ``kind`` chooses the vendor."""
