"""The small files beside the prices: membership, events, benchmark.

Price files are read in ``files``.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.source_settings import FilesSource, TableFile
from stock_pipeline.core.market.universe import check_membership
from stock_pipeline.sources.parsing import NUMBERS, numbers, session_dates
from stock_pipeline.sources.reading import first_row, read, rename


def read_table(
    table: TableFile,
    calendar: SessionCalendar,
    wanted: list[str],
    required: list[str],
    reading: FilesSource | None = None,
) -> pl.DataFrame:
    """A table in the platform's column names and types.

    Parameters
    ----------
    table
        The file, its columns and date format.
    calendar
        Of the exchange, for its time zone.
    wanted, required
        Platform names to look for, and those that must be there.
    reading
        How CSV files are written (separator, encoding, decimal comma); the defaults where left out.

    Raises
    ------
    DataError
        As for price files.
    """
    settings = reading or FilesSource(path=table.path)
    file = Path(table.path).expanduser()
    if not file.is_file():
        raise DataError("the file does not exist", value=table.path, fix=f"relative paths start at {Path.cwd()}")
    frame = rename(read(file, settings), str(file), table.columns, wanted, required)
    frame = frame.with_row_index("_row", offset=first_row(file)).with_columns(pl.lit(0).alias("_file"))
    if "symbol" in frame.columns:
        frame = frame.with_columns(pl.col("symbol").cast(pl.String).str.strip_chars())
        if table.symbol is not None:
            frame = frame.filter(pl.col("symbol") == table.symbol)
    if frame.is_empty():
        raise DataError("the file has no rows", value=str(file) if table.symbol is None else f"{file}: {table.symbol}")
    columns = []
    for column in frame.columns:
        if column in ("session", "start"):
            columns.append(_dates(frame, column, table, calendar, str(file)))
        elif column == "end":
            open_end = frame.get_column(column).is_null()
            closed = frame.filter(~open_end)
            ends = _dates(closed, column, table, calendar, str(file)) if closed.height else pl.Series([], dtype=pl.Date)
            spread = pl.DataFrame({"_row": closed["_row"], column: ends})
            columns.append(frame.select("_row").join(spread, on="_row", how="left", maintain_order="left")[column])
        elif column in NUMBERS:
            columns.append(numbers(frame, column, decimal_comma=settings.decimal_comma, files=[str(file)]))
    return frame.with_columns(columns).drop("_row", "_file")


def read_membership(
    table: TableFile | None, calendar: SessionCalendar, reading: FilesSource | None = None
) -> pl.DataFrame | None:
    """The membership file, checked."""
    if table is None:
        return None
    frame = read_table(table, calendar, ["symbol", "start", "end"], ["symbol", "start"], reading)
    if "end" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.Date).alias("end"))
    return check_membership(frame)


def _dates(frame: pl.DataFrame, column: str, table: TableFile, calendar: SessionCalendar, file: str) -> pl.Series:
    zone = calendar.timezone
    return session_dates(frame, column, date_format=table.date_format, zone=zone, exchange=zone, files=[file])
