"""Checks of back-tests: the two ledgers agree, and no result is too good to be true."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import polars as pl

from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.orchestration.checks.base import ERROR, WARN, result, spec
from stock_pipeline.orchestration.resources import Platform

RESULTS = "backtests/results"

SPECS = [
    spec(RESULTS, "both_ledgers_agree", "Our accounts and vectorbt's of the same fills agree to 1e-9.", blocking=True),
    spec(RESULTS, "sharpe_is_believable", "No Sharpe ratio above 3: on daily data that is a mistake or a leak."),
]


def evaluate(platform: Platform, computed: Sequence[BacktestResult]) -> list[dg.AssetCheckResult]:
    """Judge the results of this run, and the stored Sharpe ratios of all strategies."""
    worst = {r.strategy: r.reconciliation.worst for r in computed if r.reconciliation is not None}
    apart = [r.strategy for r in computed if r.reconciliation is None or not r.reconciliation.agrees]
    summary = "backtests/summary"
    stored = platform.lake.read(summary) if platform.lake.exists(summary) else None
    suspicious = [] if stored is None else stored.filter(pl.col("sharpe") > 3.0)["strategy"].to_list()
    return [
        result(
            RESULTS,
            "both_ledgers_agree",
            not apart,
            severity=ERROR,
            description=f"they differ for {', '.join(apart)}" if apart else "they agree",
            metadata={f"worst_relative_{name}": value for name, value in worst.items()},
        ),
        result(
            RESULTS,
            "sharpe_is_believable",
            not suspicious,
            severity=WARN,
            description=f"look for a leak in {', '.join(suspicious)}" if suspicious else "none is above 3",
        ),
    ]


def shown(value: float | None) -> str:
    """A figure for the log."""
    return "undefined" if value is None else f"{value:.2f}"
