"""Prices from a folder of CSV or Parquet files (or one file), of any vendor.

The sample market is nothing but a configuration of this source. Network vendors have modules of their own.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.corporate_actions import (
    EVENT_SCHEMA,
    factors_from_adj_close,
    factors_from_events,
    factors_from_vendor,
)
from stock_pipeline.core.market.source_settings import FilesSource, TableFile
from stock_pipeline.sources.instants import session_closes
from stock_pipeline.sources.parsing import NUMBERS, numbers, place, session_dates
from stock_pipeline.sources.protocol import SourceData
from stock_pipeline.sources.reading import discover, first_row, read, rename
from stock_pipeline.sources.tables import read_membership, read_table

_NEEDED = {"raw_with_adj_close": ("adj_close",), "raw_with_factors": ("factor",)}


class Files:
    """A `Source` that reads files.

    Parameters
    ----------
    settings
        What to read and how.
    calendar
        Sessions of the exchange; rows without a ``known_at`` of their own are known at their session's close.
    currency
        Of prices whose file and settings name none.
    """

    def __init__(self, settings: FilesSource, calendar: SessionCalendar, currency: str | None = None) -> None:
        self.settings = settings
        self.calendar = calendar
        self.currency = settings.currency or currency

    def fetch(self, start: date | None, end: date | None) -> SourceData:
        """Read everything, compute the factors over all of it, return the rows of the range (see `Source`)."""
        rows, problems = self._bars()
        rows = rows.sort("symbol", "session", maintain_order=True)
        events = self._events(rows)
        bars = self._with_factor(rows, events)
        if start is not None:
            bars = bars.filter(pl.col("session") >= start)
        if end is not None:
            bars = bars.filter(pl.col("session") <= end)
        return SourceData(
            bars=self._finish(bars),
            events=events,
            benchmark=self._benchmark(),
            membership=read_membership(self.settings.membership, self.calendar, self.settings),
            problems=tuple(problems),
        )

    def _bars(self) -> tuple[pl.DataFrame, list[str]]:
        settings = self.settings
        named = settings.symbol_from == "filename"
        wanted = [c for c in ("symbol", "session", *NUMBERS, "currency", "known_at") if not (named and c == "symbol")]
        required = [*([] if named else ["symbol"]), "session", "close", *_NEEDED.get(settings.prices, ())]
        frames: list[pl.DataFrame] = []
        files: list[str] = []
        problems: list[str] = []
        for file in discover(settings.path, settings.glob):
            frame = read(file, settings)
            renamed = rename(frame, str(file), settings.columns, wanted, required)
            if renamed.is_empty():
                problems.append(f"{file} has a header but no rows")
                continue
            if named:
                symbol = file.name.split(".", 1)[0] if file.name.lower().endswith(".csv.gz") else file.stem
                renamed = renamed.with_columns(pl.lit(symbol).alias("symbol"))
            frames.append(
                renamed.with_row_index("_row", offset=first_row(file)).with_columns(pl.lit(len(files)).alias("_file"))
            )
            files.append(str(file))
        if not frames:
            raise DataError("no file of the source has any rows", value=settings.path, fix="fetch the prices again")
        # dates are read over all files of one kind together: one file may decide day/month for another
        alike: dict[str, list[pl.DataFrame]] = {}
        for frame in frames:
            alike.setdefault(str(frame.schema["session"]), []).append(frame)
        return pl.concat(
            [self._parse(pl.concat(g, how="diagonal_relaxed"), files) for g in alike.values()], how="diagonal_relaxed"
        ), problems

    def _parse(self, frame: pl.DataFrame, files: list[str]) -> pl.DataFrame:
        settings, exchange = self.settings, self.calendar.timezone
        symbol = frame.get_column("symbol").cast(pl.String).str.strip_chars()
        unnamed = symbol.is_null() | (symbol == "")
        if unnamed.any():
            raise DataError(
                f"the symbol in {place(frame, int(unnamed.arg_max() or 0), files)} is missing", fix="correct the row"
            )
        dates = session_dates(
            frame,
            "session",
            date_format=settings.date_format,
            zone=settings.timezone or exchange,
            exchange=exchange,
            files=files,
        )
        numeric = [
            numbers(frame, c, decimal_comma=settings.decimal_comma, files=files) for c in NUMBERS if c in frame.columns
        ]
        return frame.with_columns(symbol.alias("symbol"), dates.alias("session"), *numeric)

    def _events(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        if self.settings.prices != "raw_with_events":
            return None
        if self.settings.events is not None:
            table = self._table(self.settings.events, list(EVENT_SCHEMA), ["symbol", "session"])
        else:
            table = rows
        given = [c for c in ("split_ratio", "dividend") if c in table.columns]
        if not given:
            raise DataError(
                "prices: raw_with_events, but neither the rows nor an events file have split_ratio or dividend",
                value=", ".join(table.columns),
                fix="state events: {path: ...}, map the columns, or choose another prices",
            )
        neutral = {"split_ratio": 1.0, "dividend": 0.0}
        # several vendors write 0 for "no split"
        columns = [
            (pl.col(c).fill_null(v).fill_nan(v).replace(0.0, v) if c in given else pl.lit(v)).alias(c)
            for c, v in neutral.items()
        ]
        events = table.select("symbol", "session", *columns).cast(EVENT_SCHEMA)  # type: ignore[arg-type]
        return events.filter((pl.col("split_ratio") != 1.0) | (pl.col("dividend") != 0.0)).sort("symbol", "session")

    def _with_factor(self, rows: pl.DataFrame, events: pl.DataFrame | None) -> pl.DataFrame:
        settings = self.settings
        if settings.prices == "raw_with_adj_close":
            return factors_from_adj_close(rows, tolerance=settings.factor_tolerance)
        if settings.prices == "raw_with_factors":
            return factors_from_vendor(rows, convention=settings.factor_convention, tolerance=settings.factor_tolerance)
        if events is not None:
            return factors_from_events(rows, events, settings.dividends)
        return rows.with_columns(pl.lit(1.0).alias("adj_factor"))

    def _finish(self, bars: pl.DataFrame) -> pl.DataFrame:
        if "known_at" in bars.columns:
            known = _instants(bars.get_column("known_at"), self.settings.timezone or self.calendar.timezone)
            bars = bars.with_columns(known.alias("known_at"))
        else:
            bars = session_closes(bars, self.calendar)
        currency = pl.lit(self.currency, pl.String)
        bars = bars.with_columns(
            (pl.col("currency").fill_null(currency) if "currency" in bars.columns else currency).alias("currency"),
            *(pl.lit(None, t).alias(c) for c, t in BAR_SCHEMA.items() if c not in (*bars.columns, "currency")),
        )
        return bars.select(pl.col(c).cast(t) for c, t in BAR_SCHEMA.items())

    def _benchmark(self) -> pl.DataFrame | None:
        table = self.settings.benchmark
        if table is None:
            return None
        frame = self._table(table, ["symbol", "session", "close"], ["session", "close"])
        if "symbol" in frame.columns and frame.get_column("symbol").n_unique() > 1:
            raise DataError(
                "the benchmark file holds several symbols",
                value=frame.get_column("symbol").unique().sort().head(8).to_list(),
                fix="state benchmark: {path: ..., symbol: ...}",
            )
        frame = frame.select("session", "close").sort("session")
        twice = frame.filter(pl.col("session").is_duplicated())
        if twice.height:
            raise DataError("the benchmark has a session twice", value=str(twice["session"][0]), fix="remove one")
        return frame

    def _table(self, table: TableFile, wanted: list[str], required: list[str]) -> pl.DataFrame:
        return read_table(table, self.calendar, wanted, required, self.settings)


def _instants(values: pl.Series, zone: str) -> pl.Series:
    if values.dtype == pl.String:
        parsed = values.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_zone="UTC", strict=False)
        if (parsed.is_null() & values.is_not_null()).any():
            raise DataError(
                "known_at cannot be read", value=values.filter(parsed.is_null())[0], allowed="2024-01-31T21:00:00+00:00"
            )
        values = parsed
    kind = values.dtype
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        values = values.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    return values.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
