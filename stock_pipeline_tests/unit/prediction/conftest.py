"""Real closes of 20 large US stocks, 1990-2022 (skfolio's data set, adjusted), with risk and five-session labels."""

from __future__ import annotations

import polars as pl
import pytest

from stock_pipeline.core.modelling.labels import forward_returns
from stock_pipeline.core.risk.symbol_risk import RiskSettings, symbol_risk

HORIZON = 5


@pytest.fixture(scope="session")
def stocks() -> pl.DataFrame:
    from skfolio.datasets import load_sp500_dataset

    wide = pl.from_pandas(load_sp500_dataset().reset_index())
    return (
        wide.unpivot(index="Date", variable_name="symbol", value_name="close")
        .select(
            "symbol",
            pl.col("Date").cast(pl.Date).alias("session"),
            "close",
            pl.lit(1.0).alias("adj_factor"),
            pl.lit("USD").alias("currency"),
        )
        .drop_nulls()
        .sort("symbol", "session")
    )


@pytest.fixture(scope="session")
def risks(stocks: pl.DataFrame) -> pl.DataFrame:
    return symbol_risk(stocks, RiskSettings())


@pytest.fixture(scope="session")
def zero_forecasts(stocks: pl.DataFrame, risks: pl.DataFrame) -> pl.DataFrame:
    """The naive forecast of every session with its outcome: ``prediction`` 0, ``label``, ``volatility``."""
    return (
        forward_returns(stocks, HORIZON)
        .join(risks.select("symbol", "session", "volatility"), on=["symbol", "session"], maintain_order="left")
        .with_columns(pl.lit(0.0).alias("prediction"))
        .drop_nulls(["label", "volatility"])
    )
