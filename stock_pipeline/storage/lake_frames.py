"""What a frame must be to enter the lake: names, types, keys and the canonical order of its rows.

Pure functions on frames. Reading and writing tables belongs to ``storage.lake``.
"""

from __future__ import annotations

import re
from datetime import date

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import KEYS

PARTITION = "year"
"""The physical partition column of tables with sessions; readers never see it."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_BAD_IN_COLUMN = set(" ,;{}()\n\t=/\\\"'`")
_CASTS: dict[type[pl.DataType], pl.DataType] = {
    pl.Categorical: pl.String(),
    pl.Enum: pl.String(),
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Int64(),
}
_REFUSED = (pl.Object, pl.Duration, pl.Time, pl.Unknown, pl.Int128)


def check_table_name(table: str) -> str:
    """Return ``table`` if it is a safe name such as ``market/raw_bars``.

    Raises
    ------
    DataError
        For empty parts, dots, absolute paths and anything else that could leave the lake's folder.
    """
    if not isinstance(table, str) or not table or not all(_SEGMENT.fullmatch(part) for part in table.split("/")):
        raise DataError(
            "not a table name",
            value=table,
            allowed="parts of letters, digits, _ and -, joined by /, such as market/raw_bars",
            fix="use an asset key joined by /",
        )
    return table


def normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """Check a frame and bring it into the form in which it is stored.

    Categories become strings, unsigned integers the next wider signed type, instants microseconds. Rows are sorted by
    `KEYS` (see `in_order`).

    Parameters
    ----------
    frame
        Eager frame; ``session`` must be a ``Date`` and, like ``symbol``, without nulls where present.

    Returns
    -------
    polars.DataFrame
        The stored form, without the partition column.

    Raises
    ------
    DataError
        Bad or repeated column names, types that a Delta table cannot hold, null keys.
    """
    _check_columns(frame.columns)
    casts = []
    for name, dtype in frame.schema.items():
        if isinstance(dtype, _REFUSED):
            raise DataError(f"column {name!r} has a type the lake cannot hold", value=str(dtype), fix="cast it first")
        target = _CASTS.get(type(dtype))
        if isinstance(dtype, pl.Datetime) and dtype.time_unit != "us":
            target = pl.Datetime("us", dtype.time_zone)
        if target is not None:
            casts.append(pl.col(name).cast(target))
    frame = frame.with_columns(casts) if casts else frame
    if "session" in frame.columns:
        if frame.schema["session"] != pl.Date:
            raise DataError(
                "the session column is not a date",
                value=str(frame.schema["session"]),
                allowed="Date",
                fix="parse it with str.to_date or cast the datetime to a date",
            )
        if PARTITION in frame.columns:
            raise DataError(
                f"a table with sessions cannot have a column named {PARTITION!r}",
                allowed="any other name",
                fix="rename the column: the lake keeps that name for its physical partitions",
            )
    for key in KEYS:
        if key in frame.columns and frame[key].null_count():
            raise DataError(f"{frame[key].null_count()} rows have no {key}", allowed=f"a {key} in every row")
    return in_order(frame)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by the keys that are present; rows of equal keys by all other columns that can be compared.

    A frame without any key keeps its order. The result depends only on the content, not on the order of the files.
    """
    keys = [key for key in KEYS if key in frame.columns]
    if not keys or frame.height < 2:
        return frame
    ordered = frame.sort(keys, maintain_order=True)
    same = pl.all_horizontal(pl.col(key) == pl.col(key).shift() for key in keys)
    if not ordered.select(same.any()).item():
        return ordered
    others = [name for name, dtype in frame.schema.items() if name not in keys and not dtype.is_nested()]
    return frame.sort([*keys, *others], maintain_order=True)


def with_partition(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the partition column to a frame with sessions; other frames come back as they are."""
    if "session" not in frame.columns:
        return frame
    return frame.with_columns(pl.col("session").dt.year().cast(pl.Int32).alias(PARTITION))


def check_range(frame: pl.DataFrame, start: date, end: date) -> None:
    """Refuse a frame that has rows outside ``start`` to ``end`` (both inclusive), or a range that is upside down."""
    if start > end:
        raise DataError("the range of sessions ends before it starts", value=f"{start} to {end}")
    if "session" not in frame.columns:
        raise DataError("the frame has no session column", value=frame.columns, fix="use replace for such a table")
    outside = frame.filter(~pl.col("session").is_between(pl.lit(start), pl.lit(end)))
    if outside.height:
        raise DataError(
            f"{outside.height} rows lie outside the range {start} to {end} that is being written",
            value=str(outside["session"][0]),
            fix="filter the frame or widen the range",
        )


def fit_schema(frame: pl.DataFrame, stored: pl.Schema, table: str, evolve: bool) -> pl.DataFrame:
    """Bring a frame to a table's columns, or say how they differ.

    Parameters
    ----------
    frame
        Result of `normalise`.
    stored
        The table's columns without the partition column.
    table
        Name for messages.
    evolve
        Allow new columns (older rows get nulls) and absent columns (the new rows get nulls).

    Returns
    -------
    polars.DataFrame
        Columns in the table's order, new ones last.
    """
    new = [name for name in frame.columns if name not in stored]
    absent = [name for name in stored if name not in frame.columns]
    if (new or absent) and not evolve:
        raise DataError(
            f"the frame does not have the columns of {table}",
            value={"new": new, "absent": absent},
            allowed=f"exactly {list(stored)}",
            fix="pass evolve=True to change the table, or replace it as a whole",
        )
    casts = []
    for name, dtype in stored.items():
        if name in absent:
            casts.append(pl.lit(None, dtype=dtype).alias(name))
        elif frame.schema[name] == pl.Null:
            casts.append(pl.col(name).cast(dtype))
        elif frame.schema[name] != dtype:
            raise DataError(
                f"column {name!r} of {table} has another type",
                value=str(frame.schema[name]),
                allowed=str(dtype),
                fix="cast the column, or replace the whole table to change its type",
            )
    return frame.with_columns(casts).select([*stored, *new])


def check_types_known(frame: pl.DataFrame) -> None:
    """Refuse columns without a type (all null, never typed) where there is no table yet to take the type from."""
    untyped = [name for name, dtype in frame.schema.items() if dtype == pl.Null]
    if untyped:
        raise DataError("columns without a type", value=untyped, fix="cast them to the type they will have")


def _check_columns(columns: list[str]) -> None:
    if not columns:
        raise DataError("a frame without columns cannot be stored")
    seen: dict[str, str] = {}
    for name in columns:
        if not name or len(name) > 200 or _BAD_IN_COLUMN & set(name) or not name.isprintable():
            raise DataError(
                "not a column name", value=name, allowed="printable, without spaces, quotes, slashes and ,;{}()="
            )
        if name.lower() in seen:
            raise DataError(
                "two columns differ only by case", value=[seen[name.lower()], name], fix="rename one of them"
            )
        seen[name.lower()] = name
