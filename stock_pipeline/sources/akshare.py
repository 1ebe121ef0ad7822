"""Chinese A shares: raw daily bars of Eastmoney through the akshare package, adjustment factors of Sina.

Eastmoney's own adjusted prices add dividends instead of multiplying, so that their ratio to raw prices moves every
day; Sina's factor table is multiplicative and begins at the listing. Its file is read here as data: akshare evaluates
it as program text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.source_settings import AkShareSource
from stock_pipeline.sources.network import Caller, TemporaryFailure, each_symbol, missing_extra
from stock_pipeline.sources.protocol import SourceData
from stock_pipeline.sources.tables import read_membership

_COLUMNS = {
    "日期": "session",
    "开盘": "open",
    "最高": "high",
    "最低": "low",
    "收盘": "close",
    "成交量": "volume",
    "成交额": "amount",
}
_LOT = 100.0
"""Eastmoney counts volume in lots of 100 shares."""


class AkShare:
    """A `Source` of Chinese A shares.

    Parameters
    ----------
    settings
        Six-digit codes, rates, look-back.
    calendar
        Sessions of the exchange: a session that has not closed yet is left out.
    currency
        Used where the settings name none; CNY where neither does.
    clock
        The present instant (UTC); it becomes ``known_at``.
    caller
        Replaced in tests.

    Raises
    ------
    ConfigurationError
        akshare is not installed.
    """

    def __init__(
        self,
        settings: AkShareSource,
        calendar: SessionCalendar,
        *,
        currency: str | None = None,
        clock: Callable[[], datetime],
        caller: Caller | None = None,
    ) -> None:
        try:
            import akshare
        except ImportError as error:
            raise missing_extra("akshare") from error
        self._library: Any = akshare
        self.settings, self.calendar, self.clock = settings, calendar, clock
        self.currency = settings.currency or currency or "CNY"
        self._caller = caller or Caller(
            per_minute=settings.requests_per_minute, retries=settings.retries, wait_seconds=settings.retry_wait_seconds
        )

    def fetch(self, start: date | None, end: date | None) -> SourceData:
        """Bars of every symbol, from the look-back before ``start`` on (see `Source`)."""
        now = self.clock()
        settings = self.settings
        closed = self.calendar.latest_closed(now)
        last = min(closed, end) if end is not None else closed
        first = max(start - timedelta(settings.lookback_days), settings.start) if start is not None else settings.start
        results, problems = each_symbol(settings.symbols, lambda s: self._symbol(s, first, last), "akshare")
        bars = pl.concat(list(results.values())).sort("symbol", "session")
        bars = bars.with_columns(
            pl.lit(now).dt.convert_time_zone("UTC").dt.cast_time_unit("us").alias("known_at"),
            pl.lit(self.currency).alias("currency"),
        )
        return SourceData(
            bars=bars.select(pl.col(c).cast(t) for c, t in BAR_SCHEMA.items()),
            membership=read_membership(settings.membership, self.calendar),
            problems=problems,
        )

    def _symbol(self, symbol: str, first: date, last: date) -> pl.DataFrame:
        factors = self._caller.call(lambda: self._factors(symbol))
        bars = self._caller.call(lambda: self._bars(symbol, first, last))
        # the factor in force at the configured start is the base, whatever range is asked for
        base = factors.filter(pl.col("session") <= self.settings.start).get_column("factor")
        anchor = base[-1] if len(base) else factors.get_column("factor")[0]
        return bars.join_asof(factors, on="session", strategy="backward").with_columns(
            (pl.col("factor").fill_null(factors.get_column("factor")[0]) / anchor).alias("adj_factor"),
            pl.lit(symbol).alias("symbol"),
        )

    def _bars(self, symbol: str, first: date, last: date) -> pl.DataFrame:
        from requests import RequestException

        try:
            frame = self._library.stock_zh_a_hist(
                symbol=symbol,
                period="daily",
                start_date=first.strftime("%Y%m%d"),
                end_date=last.strftime("%Y%m%d"),
                adjust="",
                timeout=self.settings.timeout_seconds,
            )
        except (RequestException, OSError, ValueError, KeyError, TypeError) as error:
            # the library reads the body whatever the status: an error page surfaces as one of these
            raise TemporaryFailure(f"{type(error).__name__}: {error}") from error
        if frame.empty:
            raise DataError(f"the vendor has no rows from {first} to {last}", value=symbol)
        return (
            pl.DataFrame({ours: frame[theirs].tolist() for theirs, ours in _COLUMNS.items()})
            .cast({"session": pl.Date, **{c: pl.Float64 for c in _COLUMNS.values() if c != "session"}})
            .with_columns(pl.col("volume") * _LOT)
            .sort("session")
        )

    def _factors(self, symbol: str) -> pl.DataFrame:
        """Table ``session, factor``: the factor in force from that session on, oldest first."""
        import httpx

        exchange = "sh" if symbol[0] in "569" else "bj" if symbol[0] in "48" else "sz"
        url = self.settings.factors_url.format(symbol=exchange + symbol)
        try:
            response = httpx.get(url, timeout=self.settings.timeout_seconds, follow_redirects=True)
        except httpx.TransportError as error:
            raise TemporaryFailure(f"{type(error).__name__}: {error}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise TemporaryFailure(f"HTTP status {response.status_code}")
        try:
            # var sh600000hfq={"total":2,"data":[{"d":"2024-07-18","f":"12.34"}, ...]} and a comment
            body = response.text.split("=", 1)[1].split("\n", 1)[0].strip().rstrip(";")
            rows = json.loads(body)["data"]
            table = pl.DataFrame(
                {"session": [date.fromisoformat(r["d"]) for r in rows], "factor": [float(r["f"]) for r in rows]}
            )
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the vendor's factors cannot be read (HTTP status {response.status_code})",
                value=response.text[:80],
                fix="check the symbol",
            ) from error
        if table.is_empty():
            raise DataError("the vendor has no factors for the symbol", value=symbol)
        return table.sort("session")
