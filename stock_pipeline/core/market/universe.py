"""The point-in-time universe: who was a member on which session, and who has enough history.

Ranking or choosing symbols by anything else belongs to strategies and models.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.errors import DataError

MEMBERSHIP_SCHEMA: dict[str, pl.DataType] = {"symbol": pl.String(), "start": pl.Date(), "end": pl.Date()}
"""Spans of membership, both ends included; a null ``end`` is open. A symbol may have several spans."""


def check_membership(membership: pl.DataFrame) -> pl.DataFrame:
    """Return the membership in its schema, sorted.

    Raises
    ------
    DataError
        A column or a start is missing, or a span ends before it starts.
    """
    missing = [c for c in MEMBERSHIP_SCHEMA if c not in membership.columns]
    if missing:
        raise DataError(
            "the membership table lacks columns",
            value=missing,
            allowed="symbol, start, end (end empty for members of today)",
            fix=f"rename or add them; found: {', '.join(membership.columns)}",
        )
    spans = membership.select(pl.col(c).cast(t) for c, t in MEMBERSHIP_SCHEMA.items()).sort("symbol", "start")
    bad = spans.filter(pl.col("symbol").is_null() | pl.col("start").is_null() | (pl.col("end") < pl.col("start")))
    if bad.height:
        raise DataError(
            "a span of the membership table is not possible",
            value={k: str(v) for k, v in bad.row(0, named=True).items()},
            allowed="a symbol, a start, and an end that is empty or not before the start",
            fix="correct that row",
        )
    return spans


def members(membership: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows whose session lies in a membership span of their symbol.

    Parameters
    ----------
    membership
        `MEMBERSHIP_SCHEMA`; spans may overlap, a row is kept once.
    bars
        Any frame with ``symbol`` and ``session``; its order is kept.

    Returns
    -------
    polars.DataFrame
        The rows of members. Symbols that the membership does not name are not members.
    """
    spans = check_membership(membership)
    numbered = bars.select("symbol", "session").with_row_index("_row")
    inside = (pl.col("session") >= pl.col("start")) & (pl.col("end").is_null() | (pl.col("session") <= pl.col("end")))
    kept = numbered.join(spans, on="symbol").filter(inside).get_column("_row").unique().sort()
    return bars[kept]


def short_history(bars: pl.DataFrame, sessions: int) -> pl.DataFrame:
    """Symbols with fewer than ``sessions`` bars.

    Returns
    -------
    polars.DataFrame
        ``symbol, sessions, first, last, reason``, sorted by symbol.
    """
    counted = bars.group_by("symbol").agg(
        pl.len().cast(pl.Int64).alias("sessions"),
        pl.col("session").min().alias("first"),
        pl.col("session").max().alias("last"),
    )
    reason = pl.format("{} sessions of history, {} are needed", pl.col("sessions"), pl.lit(sessions))
    return counted.filter(pl.col("sessions") < sessions).with_columns(reason.alias("reason")).sort("symbol")
