"""Yahoo's daily chart data through the yfinance package.

Yahoo divides prices and dividends by every later split. Raw prices come back by undoing those splits, and factors are
made from Yahoo's own dividends and splits. Because the factor is anchored at a symbol's first bar, each symbol's whole
history since ``start`` is asked for in its one request; the range and look-back decide which rows are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA, PRICES
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.corporate_actions import EVENT_SCHEMA, factors_from_events
from stock_pipeline.core.market.source_settings import YFinanceSource
from stock_pipeline.sources.network import Caller, TemporaryFailure, each_symbol, missing_extra
from stock_pipeline.sources.protocol import SourceData
from stock_pipeline.sources.tables import read_membership

_COLUMNS = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Dividends": "dividend",
    "Stock Splits": "split_ratio",
}


class YFinance:
    """A `Source` of Yahoo's prices.

    Parameters
    ----------
    settings
        Symbols, rates, look-back.
    calendar
        Sessions of the exchange: a session that has not closed yet is left out.
    currency
        Used where Yahoo and the settings name none.
    clock
        The present instant (UTC); it becomes ``known_at``.
    caller
        Replaced in tests.

    Raises
    ------
    ConfigurationError
        yfinance is not installed.
    """

    def __init__(
        self,
        settings: YFinanceSource,
        calendar: SessionCalendar,
        *,
        currency: str | None = None,
        clock: Callable[[], datetime],
        caller: Caller | None = None,
    ) -> None:
        try:
            import yfinance
        except ImportError as error:
            raise missing_extra("yfinance") from error
        self._library: Any = yfinance
        self.settings, self.calendar, self.clock = settings, calendar, clock
        self.currency = settings.currency or currency
        self._session = _redirected(settings.base_url) if settings.base_url else None
        self._caller = caller or Caller(
            per_minute=settings.requests_per_minute, retries=settings.retries, wait_seconds=settings.retry_wait_seconds
        )

    def fetch(self, start: date | None, end: date | None) -> SourceData:
        """Bars of every symbol, from the look-back before ``start`` on (see `Source`)."""
        now = self.clock()
        results, problems = each_symbol(self.settings.symbols, self._history, "yfinance")
        events = pl.concat([_events(frame) for frame in results.values()]).sort("symbol", "session")
        rows = pl.concat([_raw(frame) for frame in results.values()]).sort("symbol", "session")
        bars = factors_from_events(rows, events, self.settings.dividends).with_columns(
            pl.lit(now).dt.convert_time_zone("UTC").dt.cast_time_unit("us").alias("known_at"),
            pl.lit(None, pl.Float64).alias("amount"),
            pl.col("currency").fill_null(pl.lit(self.currency, pl.String)),
        )
        last = min(self.calendar.latest_closed(now), end) if end is not None else self.calendar.latest_closed(now)
        first = start - timedelta(self.settings.lookback_days) if start is not None else self.settings.start
        bars = bars.filter(pl.col("session").is_between(first, last))
        benchmark = None
        if self.settings.benchmark is not None:
            try:
                frame = self._history(self.settings.benchmark)
                benchmark = frame.filter(pl.col("session") <= last).select("session", "close").sort("session")
            except (TemporaryFailure, DataError) as error:
                problems = (*problems, f"yfinance benchmark {self.settings.benchmark}: {error}")
        return SourceData(
            bars=bars.select(pl.col(c).cast(t) for c, t in BAR_SCHEMA.items()),
            events=events,
            benchmark=benchmark,
            membership=read_membership(self.settings.membership, self.calendar),
            problems=problems,
        )

    def _history(self, symbol: str) -> pl.DataFrame:
        return self._caller.call(lambda: self._request(symbol))

    def _request(self, symbol: str) -> pl.DataFrame:
        """One symbol's split-adjusted history with dividends and splits in its rows."""
        library, errors = self._library, self._library.exceptions
        library.config.debug.hide_exceptions = False
        ticker = library.Ticker(symbol, session=self._session)
        # the exchange's zone is known: this saves the request by which the library would ask for it
        ticker._tz = self.calendar.timezone
        try:
            frame = ticker.history(
                start=self.settings.start.isoformat(),
                interval="1d",
                auto_adjust=False,
                actions=True,
                timeout=self.settings.timeout_seconds,
            )
        except errors.YFRateLimitError as error:
            raise TemporaryFailure("the vendor's rate limit is reached") from error
        except errors.YFPricesMissingError as error:
            raise DataError("the vendor has no prices for the symbol", value=str(error)) from error
        except (
            Exception
        ) as error:  # what else comes out of the library is transport: sockets, curl, JSON of an error page
            raise TemporaryFailure(f"{type(error).__name__}: {error}") from error
        if frame.empty:
            raise DataError("the vendor returned no rows for the symbol", value=symbol)
        currency = ticker.history_metadata.get("currency")
        columns = {ours: frame[theirs].to_numpy(dtype=float) for theirs, ours in _COLUMNS.items() if theirs in frame}
        return pl.DataFrame({"session": [stamp.date() for stamp in frame.index], **columns}).with_columns(
            pl.lit(symbol).alias("symbol"), pl.lit(currency, pl.String).alias("currency")
        )


def _later_splits(frame: pl.DataFrame) -> pl.Series:
    """Product of the splits after each row."""
    split = pl.when(pl.col("split_ratio") > 0).then(pl.col("split_ratio")).otherwise(1.0)
    return frame.select(split.reverse().cum_prod().reverse().shift(-1).fill_null(1.0).alias("later")).to_series()


def _raw(frame: pl.DataFrame) -> pl.DataFrame:
    """Prices and volume as traded: Yahoo's with the later splits undone, and its 32-bit noise rounded away."""
    later = _later_splits(frame)
    return frame.select(
        "symbol",
        "session",
        *(_to_tick(pl.col(c) * later).alias(c) for c in PRICES),
        (pl.col("volume") / later).round().alias("volume"),
        "currency",
    )


def _to_tick(price: pl.Expr) -> pl.Expr:
    """Round to half a cent where 32-bit noise explains the difference, else to four decimals."""
    tick = (price * 200).round() / 200
    near = (tick - price).abs() <= price.abs() * 1.5e-7 + 1e-5
    return pl.when(near).then(tick).otherwise(price).round(4)


def _events(frame: pl.DataFrame) -> pl.DataFrame:
    """Splits and dividends; Yahoo's dividends, too, are divided by later splits."""
    later = _later_splits(frame)
    return (
        frame.select(
            "symbol",
            "session",
            pl.when(pl.col("split_ratio") > 0).then(pl.col("split_ratio")).otherwise(1.0).alias("split_ratio"),
            (pl.col("dividend") * later).round(6).alias("dividend"),
        )
        .filter((pl.col("split_ratio") != 1.0) | (pl.col("dividend") != 0.0))
        .cast(EVENT_SCHEMA)  # type: ignore[arg-type]
    )


def _redirected(base_url: str) -> Any:
    """A session of the library's own transport that sends Yahoo's requests to another address."""
    from urllib.parse import urlsplit, urlunsplit

    from yfinance._http import new_session

    session = new_session()
    target = urlsplit(base_url)
    send = session.request

    def request(method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        there = urlsplit(url)
        if (there.hostname or "").endswith("yahoo.com"):
            path = target.path.rstrip("/") + there.path
            url = urlunsplit((target.scheme, target.netloc, path, there.query, there.fragment))
        return send(method, url, *args, **kwargs)

    session.request = request
    return session
