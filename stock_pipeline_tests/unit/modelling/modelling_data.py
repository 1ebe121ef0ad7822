"""Real closes of skfolio's 20 stocks as bars, with a few simple features, for the tests of modelling."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

from stock_pipeline.core.modelling import dataset, labels
from stock_pipeline.core.modelling.settings import TrainingSettings

FEATURES = (
    "return_1",
    "return_5",
    "return_20",
    "return_60",
    "return_250",
    "volatility_20",
    "volatility_60",
    "distance",
)
SETTINGS = TrainingSettings(folds=3, horizon=5, embargo=5, holdout_sessions=60, threads=1)


@cache
def bars(sessions: int = 1100, symbols: int = 6) -> pl.DataFrame:
    """The newest sessions of the first symbols, in long form, closes only."""
    from skfolio.datasets import load_sp500_dataset

    wide = load_sp500_dataset().iloc[-sessions:, :symbols]
    return (
        pl.from_pandas(wide.reset_index().rename(columns={"Date": "session"}))
        .with_columns(pl.col("session").cast(pl.Date))
        .unpivot(index="session", variable_name="symbol", value_name="close")
        .select("symbol", "session", "close")
        .sort("symbol", "session")
    )


@cache
def features(sessions: int = 1100, symbols: int = 6) -> pl.DataFrame:
    """Past returns, volatilities and the distance from a mean; null where the look-back is not full."""
    close = pl.col("close")
    daily = close / close.shift(1).over("symbol") - 1
    past = {f"return_{n}": close / close.shift(n).over("symbol") - 1 for n in (1, 5, 20, 60, 250)}
    spread = {f"volatility_{n}": daily.rolling_std(n).over("symbol") for n in (20, 60)}
    frame = bars(sessions, symbols).with_columns(
        **past, **spread, distance=close / close.rolling_mean(50).over("symbol") - 1
    )
    return frame.select("symbol", "session", pl.col(FEATURES).cast(pl.Float32))


@cache
def data(sessions: int = 1100, symbols: int = 6, horizon: int = 5) -> pl.DataFrame:
    """Features joined with forward returns."""
    frame = bars(sessions, symbols)
    return dataset.join(features(sessions, symbols), labels.forward_returns(frame, horizon))


def noise(seed: int, size: int) -> np.ndarray:
    """Seeded standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(size)
