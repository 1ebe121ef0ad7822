"""Which symbols have too little history, and why."""

from __future__ import annotations

from datetime import date

import polars as pl

from stock_pipeline.core.quality.registry import FINDINGS_SCHEMA


def short_histories(validated: pl.DataFrame, *, minimum: int, session: date | None = None) -> pl.DataFrame:
    """List the symbols that have fewer accepted bars than are needed.

    Parameters
    ----------
    validated
        Validated bars.
    minimum
        Accepted bars needed.
    session
        Count bars up to and including this session; by default the newest in the frame.

    Returns
    -------
    polars.DataFrame
        Findings of rule ``short_history``, one for each such symbol, dated ``session``: ``value`` holds the bars it
        has, ``expected`` those it needs.
    """
    session = session or validated["session"].max()  # type: ignore[assignment]
    counts = validated.filter(pl.col("session") <= session).group_by("symbol").len("have")
    short = counts.filter(pl.col("have") < minimum).sort("symbol")
    return short.select(
        pl.col("symbol"),
        session=pl.lit(session, dtype=pl.Date),
        rule=pl.lit("short_history"),
        severity=pl.lit("warn"),
        field=pl.lit("session"),
        value=pl.col("have").cast(pl.Float64),
        expected=pl.lit(float(minimum)),
        message=pl.format("{} accepted sessions, {} are needed", pl.col("have"), pl.lit(minimum)),
    ).cast(FINDINGS_SCHEMA)  # type: ignore[arg-type]
