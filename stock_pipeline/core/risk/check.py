"""The verdict on VaR: whether its backtest is good enough to rely on.

The tests themselves are in ``backtest.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from pydantic import Field

from stock_pipeline.core.parameters import Parameters


class VarCheckSettings(Parameters):
    """When VaR is wrong.

    A test at significance s rejects a share s of right symbols, so not all need to pass; and pooled exceedances are
    dependent, so their rate is judged by size and not by its p-value.
    """

    significance: float = Field(default=0.01, gt=0.0, lt=0.5, description="a symbol with a smaller p-value fails")
    minimum_share: float = Field(default=0.8, gt=0.0, le=1.0, description="share of symbols that must pass Kupiec")
    rate_tolerance: float = Field(
        default=0.25, gt=0.0, le=1.0, description="allowed relative error of the pooled exceedance rate"
    )
    minimum_observations: int = Field(default=250, ge=50, description="a symbol with fewer forecasts is not judged")


@dataclass(frozen=True)
class VarVerdict:
    """Result of `var_check`; ``passing`` holds per level the judged symbols and the shares that pass each test."""

    passed: bool
    reasons: tuple[str, ...]
    passing: pl.DataFrame


def var_check(per_symbol: pl.DataFrame, pooled: pl.DataFrame, settings: VarCheckSettings | None = None) -> VarVerdict:
    """Judge the frames of `stock_pipeline.core.risk.backtest.risk_backtest`.

    Fails when at some level too few symbols pass Kupiec, or the pooled exceedance rate is too far from the expected
    one. Dependence of exceedances (Christoffersen) is in the table and does not fail the check: every VaR that reacts
    within days shows some. Without enough forecasts it passes and says that nothing was judged.
    """
    chosen = settings or VarCheckSettings()
    schema: dict[str, pl.DataType] = {
        "level": pl.Float64(),
        "symbols": pl.Int64(),
        "kupiec": pl.Float64(),
        "independence": pl.Float64(),
        "conditional": pl.Float64(),
        "failing": pl.List(pl.String()),
    }
    if not per_symbol.height or not pooled.height:
        return VarVerdict(True, ("not judged: no VaR forecast has an outcome",), pl.DataFrame(schema=schema))
    judged = per_symbol.filter(pl.col("observations") >= chosen.minimum_observations)
    good = pl.col("kupiec_p") >= chosen.significance
    passing = (
        judged.sort("level", "symbol")
        .group_by("level", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("symbols"),
            good.mean().alias("kupiec"),
            (pl.col("independence_p") >= chosen.significance).mean().alias("independence"),
            (pl.col("conditional_p") >= chosen.significance).mean().alias("conditional"),
            pl.col("symbol").filter(~good).alias("failing"),
        )
        .cast(schema)  # type: ignore[arg-type]
    )
    if not passing.height:
        few = f"not judged: no symbol has {chosen.minimum_observations} VaR forecasts with an outcome"
        return VarVerdict(True, (few,), passing)
    reasons = [
        f"VaR {row['level']:.0%}: {row['kupiec']:.0%} of {row['symbols']} symbols pass Kupiec's test, needed "
        f"{chosen.minimum_share:.0%}"
        for row in passing.iter_rows(named=True)
        if row["kupiec"] < chosen.minimum_share
    ]
    reasons += [
        f"VaR {row['level']:.0%}: exceeded in {row['exceedance_rate']:.2%} of {row['observations']} sessions, expected "
        f"{row['expected_rate']:.2%}"
        for row in pooled.sort("level").iter_rows(named=True)
        if row["observations"] >= chosen.minimum_observations
        and abs(row["exceedance_rate"] / row["expected_rate"] - 1.0) > chosen.rate_tolerance
    ]
    return VarVerdict(not reasons, tuple(reasons), passing)
