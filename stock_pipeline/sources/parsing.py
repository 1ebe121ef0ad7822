"""Text to dates and numbers, with errors that show the value, the file and the row.

Choosing files and columns belongs to ``reading``.
"""

from __future__ import annotations

from datetime import time

import polars as pl

from stock_pipeline.core.errors import DataError

PLACE = ("_file", "_row")
"""Helper columns of a frame that was read: index of the file and number of the row in it."""

NUMBERS = ("open", "high", "low", "close", "volume", "amount", "adj_close", "factor", "split_ratio", "dividend")
"""Platform columns that hold numbers."""

EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
"""Names to use as ``date_format`` for counts since 1970, and their length in microseconds."""

_UNAMBIGUOUS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%d-%B-%Y",
    "%B %d, %Y",
)
_DAY_OR_MONTH_FIRST = r"^(\d{1,2})([/.\-])(\d{1,2})[/.\-](\d{4})$"
_WITH_TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"


def place(frame: pl.DataFrame, row: int, files: list[str]) -> str:
    """Where a row of the frame stands in its file, for messages."""
    at = frame.row(row, named=True)
    return f"{files[at['_file']]}, row {at['_row']}"


def session_dates(
    frame: pl.DataFrame, column: str, *, date_format: str | None, zone: str, exchange: str, files: list[str]
) -> pl.Series:
    """Turn a column into exchange dates.

    Parameters
    ----------
    frame
        Rows with ``column`` and `PLACE`.
    date_format
        The user's format or one of `EPOCHS`; without it only unambiguous forms are accepted.
    zone, exchange
        Time zone of timestamps that name none, and of the exchange whose dates are wanted.
    files
        Names for messages.

    Raises
    ------
    DataError
        A missing or unparsable value (value and row are shown), or D/M/Y against M/D/Y undecided by the data.
    """
    values = frame.get_column(column)
    kind = values.dtype
    if date_format in EPOCHS and (kind.is_integer() or kind == pl.String):
        instants = (values.cast(pl.Int64, strict=False) * EPOCHS[date_format]).cast(pl.Datetime("us", "UTC"))
        parsed = _local_date(instants, zone, exchange)
    elif kind == pl.Date:
        parsed = values
    elif isinstance(kind, pl.Datetime):
        parsed = _local_date(values, zone, exchange)
    elif kind.is_integer():
        text = values.cast(pl.String)
        parsed = text.str.to_date(date_format or "%Y%m%d", strict=False)
    elif kind == pl.String:
        parsed = _text_dates(frame, values, date_format, zone, exchange, files)
    else:
        raise DataError(
            f"the column {column!r} of {files[0]} holds {kind}, which is no date",
            allowed="dates, timestamps, or text",
            fix="name the right column under columns: {session: ...}",
        )
    missing = parsed.is_null()
    if missing.any():
        row = int(missing.arg_max() or 0)
        value = values[row]
        raise DataError(
            f"the date in {place(frame, row, files)} is missing"
            if value is None
            else f"the date in {place(frame, row, files)} cannot be read",
            value=value,
            allowed=date_format or "2024-01-31, 20240131, 31-Jan-2024 and the like",
            fix="correct the row, or state date_format (such as %d/%m/%Y)",
        )
    return parsed


def _local_date(values: pl.Series, zone: str, exchange: str) -> pl.Series:
    """Exchange date of instants; midnights are plain dates that somebody stored as timestamps."""
    if (values.dt.time().drop_nulls() == time(0)).all():
        return values.dt.date()
    kind = values.dtype
    assert isinstance(kind, pl.Datetime)
    if kind.time_zone is None:
        values = values.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return values.dt.convert_time_zone(exchange).dt.date()


def _text_dates(
    frame: pl.DataFrame, values: pl.Series, date_format: str | None, zone: str, exchange: str, files: list[str]
) -> pl.Series:
    values = values.str.strip_chars()
    if date_format is not None:
        if any(directive in date_format for directive in ("%H", "%I", "%T", "%s")):
            return _local_date(values.str.to_datetime(date_format, strict=False), zone, exchange)
        return values.str.to_date(date_format, strict=False)
    sample = values.drop_nulls()
    if len(sample) == 0:
        return values.str.to_date("%Y-%m-%d", strict=False)
    if sample.head(1).str.contains(_WITH_TIME).all():
        return _local_date(_iso_instants(values), zone, exchange)
    if sample.head(1).str.contains(_DAY_OR_MONTH_FIRST).all():
        return values.str.to_date(_day_or_month_first(frame, values, files), strict=False)
    first = sample.head(1)
    fits = (f for f in _UNAMBIGUOUS if first.str.to_date(f, strict=False).is_not_null().all())
    return values.str.to_date(next(fits, _UNAMBIGUOUS[0]), strict=False)


def _iso_instants(values: pl.Series) -> pl.Series:
    if values.drop_nulls().head(1).str.contains(r"(Z|[+-]\d{2}:?\d{2})$").all():
        return (
            values.str.replace(r"Z$", "+00:00")
            .str.replace(" ", "T")
            .str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_zone="UTC", strict=False)
        )
    return values.str.replace(" ", "T").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False)


def _day_or_month_first(frame: pl.DataFrame, values: pl.Series, files: list[str]) -> str:
    parts = frame.select(
        values.str.extract(_DAY_OR_MONTH_FIRST, 1).cast(pl.Int32, strict=False).alias("a"),
        values.str.extract(_DAY_OR_MONTH_FIRST, 2).alias("separator"),
        values.str.extract(_DAY_OR_MONTH_FIRST, 3).cast(pl.Int32, strict=False).alias("b"),
    )
    day_first = parts.select((pl.col("a") > 12).any()).item()
    month_first = parts.select((pl.col("b") > 12).any()).item()
    mark = parts.get_column("separator").drop_nulls()[0]
    forms = {"day": f"%d{mark}%m{mark}%Y", "month": f"%m{mark}%d{mark}%Y"}
    if day_first == month_first:
        both = (
            "some dates are only possible as day/month, others only as month/day"
            if day_first
            else ("dates may be day/month/year or month/day/year, and no date decides it")
        )
        raise DataError(
            f"{files[0]}: {both}",
            value=values.drop_nulls()[0],
            allowed=f"{forms['day']} or {forms['month']}",
            fix="state date_format in the configuration",
        )
    return forms["day"] if day_first else forms["month"]


def numbers(frame: pl.DataFrame, column: str, *, decimal_comma: bool, files: list[str]) -> pl.Series:
    """Turn a column into Float64; NaN and infinities are kept for validation to judge.

    Raises
    ------
    DataError
        Text that is no number; value and row are shown.
    """
    values = frame.get_column(column)
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return values.cast(pl.Float64)
    if values.dtype != pl.String:
        raise DataError(f"the column {column!r} of {files[0]} holds {values.dtype}", allowed="numbers")
    text = values.str.strip_chars()
    if decimal_comma:
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    parsed = text.cast(pl.Float64, strict=False)
    wrong = parsed.is_null() & text.is_not_null()
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        comma = "," in (values[row] or "")
        raise DataError(
            f"{column!r} in {place(frame, row, files)} is not a number",
            value=values[row],
            allowed="numbers such as 12.5",
            fix="set decimal_comma, or remove thousands separators"
            if comma
            else "correct the row, name the right column, or list the text under null_values",
        )
    return parsed
