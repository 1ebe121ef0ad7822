"""What became of predictions: the realised return once the horizon has passed.

Judging many outcomes together belongs to ``coverage.py`` and ``drift.py``.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.errors import DataError

OUTCOME_COLUMNS = (
    "prediction_id",
    "symbol",
    "session",
    "horizon",
    "label_session",
    "expected_return",
    "lower",
    "upper",
    "confidence",
    "coverage_target",
    "interval_level",
    "volatility",
    "realised_return",
    "inside",
    "error",
    "hit",
    "model_name",
    "model_version",
    "arm",
    "fallback_level",
)
"""Columns of the outcomes table, in order."""


def mature(predictions: pl.DataFrame, bars: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Join predictions with their realised return where the bars already hold it.

    Parameters
    ----------
    predictions
        Rows as `stock_pipeline.core.prediction.score.score` makes them; only those of ``horizon`` are used.
    bars
        Validated bars from the oldest prediction's session to the newest known one.
    horizon
        Sessions of the forward return.

    Returns
    -------
    polars.DataFrame
        `OUTCOME_COLUMNS`, sorted by symbol and session, one row for each prediction whose outcome is known:
        ``label_session`` is the session that completed it, ``inside`` whether it lies in the closed interval,
        ``error = realised_return - expected_return``, ``hit`` whether the sign was right (null where either is 0).

    Raises
    ------
    DataError
        A column is missing.
    """
    from stock_pipeline.core.modelling.labels import forward_returns

    missing = [c for c in OUTCOME_COLUMNS if c not in (*predictions.columns, *_MADE)]
    if missing:
        raise DataError("predictions lack columns", value=missing)
    labels = forward_returns(bars, horizon).select(
        "symbol", "session", pl.col("label").cast(pl.Float64).alias("realised_return"), "label_session"
    )
    realised, expected = pl.col("realised_return"), pl.col("expected_return")
    return (
        predictions.filter(pl.col("horizon") == horizon)
        .drop([c for c in _MADE if c in predictions.columns])
        .join(labels.filter(realised.is_finite()), on=["symbol", "session"], how="inner")
        .with_columns(
            realised.is_between(pl.col("lower"), pl.col("upper")).alias("inside"),
            (realised - expected).alias("error"),
            pl.when((expected != 0) & (realised != 0)).then(expected.sign() == realised.sign()).alias("hit"),
        )
        .select(OUTCOME_COLUMNS)
        .sort("symbol", "session", "prediction_id")
    )


_MADE = ("label_session", "realised_return", "inside", "error", "hit")
