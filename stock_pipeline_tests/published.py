"""Publishes predictions into a lake for tests of what reads them; the values follow a fixed rule."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl

from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED, UNPREDICTED

SESSIONS = (date(2023, 6, 28), date(2023, 6, 29), date(2023, 6, 30))


def predictions(session: date, symbols: int = 25, *, shift: float = 0.0) -> pl.DataFrame:
    """One session of predictions: symbol ``Snnn`` has rank nnn + 1; each value carries ``shift``."""
    number = pl.int_range(symbols, eager=True).alias("number")
    return (
        pl.DataFrame({"number": number})
        .with_columns(
            symbol=pl.format("S{}", pl.col("number").cast(pl.String).str.zfill(3)),
            session=pl.lit(session),
            horizon=pl.lit(5, dtype=pl.Int32),
            expected_return=0.05 - pl.col("number") / 1000 + shift,
            lower=-0.05 - pl.col("number") / 1000 + shift,
            upper=0.15 - pl.col("number") / 1000 + shift,
            confidence=1 - pl.col("number") / symbols,
            coverage_target=pl.lit(0.9),
            rank=(pl.col("number") + 1).cast(pl.Int32),
            model_name=pl.lit("us_sample"),
            model_version=pl.lit("3"),
            arm=pl.lit("champion"),
            fallback_level=pl.lit(0, dtype=pl.Int32),
            fallback_reason=pl.lit(None, dtype=pl.String),
            feature_set_hash=pl.lit("c0ffee"),
            lake_version=pl.lit("17"),
            config_version=pl.lit("3f2a90b1"),
            code_version=pl.lit("0.1.0+abc"),
            seed=pl.lit(7, dtype=pl.Int64),
            published_at=pl.lit(datetime(2023, 7, 1, 1, tzinfo=UTC)).cast(pl.Datetime("us", "UTC")),
            volatility=0.2 + pl.col("number") / 100,
            var_95=pl.when(pl.col("number") == 3).then(float("nan")).otherwise(0.02 + shift),
            es_95=pl.when(pl.col("number") == 4).then(float("inf")).otherwise(0.03),
            close=100.0 + pl.col("number"),
            currency=pl.lit("USD"),
        )
        .with_columns(prediction_id=pl.format("{}.{}.5", "session", "symbol"))
        .drop("number")
    )


def publish(lake: Lake, session: date, symbols: int = 25, *, shift: float = 0.0) -> int:
    """Publish one session and return the version of the table."""
    return lake.write_sessions(PUBLISHED, predictions(session, symbols, shift=shift), start=session, end=session)


def publish_unpredicted(lake: Lake, session: date) -> None:
    """Say that one symbol has no prediction."""
    frame = pl.DataFrame(
        {"symbol": ["NEW"], "session": [session], "reason": ["too little history"], "detail": ["3 of 252 sessions"]}
    )
    lake.write_sessions(UNPREDICTED, frame, start=session, end=session)
