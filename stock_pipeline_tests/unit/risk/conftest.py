"""Real closes of 20 large US stocks, 1990-2022 (skfolio's data set, adjusted), as bars."""

from __future__ import annotations

import polars as pl
import pytest

from stock_pipeline.core.risk.symbol_risk import RiskSettings, symbol_risk


@pytest.fixture(scope="session")
def twenty_stocks() -> pl.DataFrame:
    from skfolio.datasets import load_sp500_dataset

    wide = pl.from_pandas(load_sp500_dataset().reset_index())
    return (
        wide.unpivot(index="Date", variable_name="symbol", value_name="close")
        .select("symbol", pl.col("Date").cast(pl.Date).alias("session"), "close", pl.lit(1.0).alias("adj_factor"))
        .drop_nulls()
        .sort("symbol", "session")
    )


@pytest.fixture(scope="session")
def twenty_risks(twenty_stocks: pl.DataFrame) -> pl.DataFrame:
    return symbol_risk(twenty_stocks, RiskSettings())
