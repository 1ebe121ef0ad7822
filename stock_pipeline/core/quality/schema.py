"""The form of a raw frame: columns and types, before any row is judged."""

from __future__ import annotations

from typing import Any

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA

REQUIRED = ("symbol", "session", "close")
DEFAULTS = {"adj_factor": 1.0}


def conform(raw: pl.DataFrame) -> pl.DataFrame:
    """Bring a raw frame into `BAR_SCHEMA`, without touching a value.

    Parameters
    ----------
    raw
        Any frame with at least symbol, session and close. Absent optional columns become null (``adj_factor`` 1).
        Numbers of another width are widened; other types are refused.

    Returns
    -------
    polars.DataFrame
        The rows in their order, exactly the columns of `BAR_SCHEMA`.

    Raises
    ------
    DataError
        For an absent required column or a column of a wrong type, naming it.
    """
    absent = [name for name in REQUIRED if name not in raw.columns]
    if absent:
        raise DataError("bars lack a required column", value=absent, allowed=f"at least {', '.join(REQUIRED)}")
    columns = []
    for name, kind in BAR_SCHEMA.items():
        if name not in raw.columns:
            columns.append(pl.lit(DEFAULTS.get(name), dtype=kind).alias(name))
        elif _widens(raw.schema[name], kind):
            columns.append(pl.col(name).cast(kind))
        else:
            columns.append(pl.col(name))
    frame = raw.select(columns)
    _check_types(frame)
    return frame


def _widens(have: pl.DataType, want: pl.DataType) -> bool:
    if have == want:
        return False
    if have == pl.Null:
        return True
    if want == pl.Float64():
        return have.is_numeric()
    if isinstance(want, pl.Datetime):
        return isinstance(have, pl.Datetime) and have.time_zone == want.time_zone
    return want == pl.String() and isinstance(have, pl.Categorical | pl.Enum)


def _check_types(frame: pl.DataFrame) -> None:
    import pandera.errors
    import pandera.polars as pa

    # Rows are judged by the rules (ten times faster, and with a fate for each), so every column is nullable here.
    columns: dict[str, Any] = {name: pa.Column(kind, nullable=True) for name, kind in BAR_SCHEMA.items()}
    try:
        pa.DataFrameSchema(columns, strict=True).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        wrong = {name: str(frame.schema[name]) for name, kind in BAR_SCHEMA.items() if frame.schema[name] != kind}
        raise DataError(
            "bars have columns of a wrong type",
            value=wrong,
            allowed=", ".join(f"{name}: {BAR_SCHEMA[name]}" for name in wrong),
            fix="parse dates and numbers when the file is read",
        ) from error
