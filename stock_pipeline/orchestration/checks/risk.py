"""Checks of the risk table: VaR is itself backtested."""

from __future__ import annotations

import dagster as dg
import polars as pl

from stock_pipeline.orchestration.checks.base import ERROR, WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table

TABLE = "risk/symbol_risk"

SPECS = [
    spec(TABLE, "risk_is_ordered", "VaR and ES are positive, and 99 % is at least 95 %.", blocking=True),
    spec(TABLE, "var_holds_in_backtest", "Most symbols pass Kupiec's test at both levels (p > 1 %)."),
]


def ordered(risk: pl.DataFrame) -> dg.AssetCheckResult:
    """Judge the order of the figures of one row."""
    wrong = risk.filter(
        (pl.col("var_95") <= 0)
        | (pl.col("var_99") < pl.col("var_95"))
        | (pl.col("es_95") < pl.col("var_95"))
        | (pl.col("es_99") < pl.col("var_99"))
    )
    return result(TABLE, "risk_is_ordered", wrong.is_empty(), severity=ERROR, metadata={"rows": wrong.height})


def backtested(per_symbol: pl.DataFrame, pooled: pl.DataFrame) -> dg.AssetCheckResult:
    """Judge the VaR by the share of symbols that pass."""
    if per_symbol.is_empty():
        return result(
            TABLE, "var_holds_in_backtest", False, severity=WARN, description="no VaR forecast has an outcome yet"
        )
    shares = (
        per_symbol.group_by("level").agg(pass_share=(pl.col("kupiec_p") > 0.01).mean(), symbols=pl.len()).sort("level")
    )
    passed = bool((shares["pass_share"] >= 0.7).all())
    return result(
        TABLE,
        "var_holds_in_backtest",
        passed,
        severity=WARN,
        metadata={
            "share_of_symbols_that_pass": dg.MetadataValue.md(markdown_table(shares)),
            "pooled": dg.MetadataValue.md(markdown_table(pooled)),
        },
    )
