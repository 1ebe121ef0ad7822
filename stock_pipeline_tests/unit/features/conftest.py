from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture(scope="session")
def market(sample_dir: Path) -> pl.DataFrame:
    """The sample market's eight stocks, 2016 to 2021, with amounts (close times volume) and the benchmark."""
    if not (sample_dir / "bars").is_dir():
        pytest.skip("needs the sample market in data/sample")
    bars = pl.concat([pl.read_csv(path, try_parse_dates=True) for path in sorted((sample_dir / "bars").glob("*.csv"))])
    level = pl.read_csv(sample_dir / "benchmark.csv", try_parse_dates=True).rename({"close": "benchmark"})
    factor = pl.col("adj_close") / pl.col("close")
    return (
        bars.sort("symbol", "session")
        .with_columns(
            pl.col("open", "high", "low", "close", "volume").cast(pl.Float64),
            adj_factor=(factor / factor.first()).over("symbol"),
        )
        .with_columns(amount=pl.col("close") * pl.col("volume"))
        .filter(pl.col("session").is_between(date(2016, 1, 1), date(2021, 12, 31)))
        .join(level, on="session", how="left", maintain_order="left")
        .drop("adj_close")
    )
