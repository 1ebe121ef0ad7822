"""Checks of the risk table: VaR is itself backtested."""

from __future__ import annotations

import dagster as dg
import polars as pl

from stock_pipeline.core.risk.check import var_check
from stock_pipeline.orchestration.checks.base import ERROR, WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table

TABLE = "risk/symbol_risk"

SPECS = [
    spec(TABLE, "risk_is_ordered", "VaR and ES are not negative, and 99 % is at least 95 %.", blocking=True),
    spec(TABLE, "var_holds_in_backtest", "Most symbols pass Kupiec's test, and the pooled rate is right."),
]


def ordered(risk: pl.DataFrame) -> dg.AssetCheckResult:
    """Judge the order of the figures of one row."""
    wrong = risk.filter(
        (pl.col("var_95") < 0)
        | (pl.col("var_99") < pl.col("var_95"))
        | (pl.col("es_95") < pl.col("var_95"))
        | (pl.col("es_99") < pl.col("var_99"))
    )
    return result(TABLE, "risk_is_ordered", wrong.is_empty(), severity=ERROR, metadata={"rows": wrong.height})


def backtested(per_symbol: pl.DataFrame, pooled: pl.DataFrame) -> dg.AssetCheckResult:
    """Judge the VaR by the share of symbols that pass and by the pooled rate of exceedances."""
    verdict = var_check(per_symbol, pooled)
    return result(
        TABLE,
        "var_holds_in_backtest",
        verdict.passed,
        severity=WARN,
        description="; ".join(verdict.reasons) or "value at risk is exceeded as often as it should be",
        metadata={
            "share_of_symbols_that_pass": dg.MetadataValue.md(markdown_table(verdict.passing)),
            "pooled": dg.MetadataValue.md(markdown_table(pooled)),
        },
    )
