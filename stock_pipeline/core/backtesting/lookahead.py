"""A check that a strategy does not cheat: its decisions must not change when the future does."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import Strategy
from stock_pipeline.core.errors import LookAheadError


def validate_no_lookahead(
    strategy: Strategy, data: MarketData, *, cuts: int = 10, seed: int = 0, targets: pl.DataFrame | None = None
) -> None:
    """Take the future away, or replace it by another one, and compare the decisions before it.

    Parameters
    ----------
    strategy
        With its parameters.
    data
        All of the data.
    cuts
        Number of dates, drawn without repetition; at each one the data ends there in one trial and goes on with other
        prices and predictions in a second one.
    seed
        Seed of the dates and of the other future.
    targets
        The decisions on all of the data, when they are known already.

    Raises
    ------
    LookAheadError
        Naming the first date whose decision changed.

    Notes
    -----
    Because a decision is compared for every symbol and date up to the cut, a leak is found even when it never causes a
    trade to be opened or closed at the cut itself. A leak that has no influence before any cut drawn is not found:
    raise ``cuts``.
    """
    if cuts <= 0 or len(data.sessions) < 3:
        return
    full = strategy.targets(data) if targets is None else targets
    rng = np.random.default_rng(seed)
    # Decisions are where a leak can be seen: the dates are drawn among them, and among all sessions.
    decided = sorted(set(full["session"].to_list()) & set(data.sessions[:-1])) or data.sessions[:-1]
    pool = [decided, data.sessions[:-1]]
    for i in range(cuts):
        choice = pool[i % 2]
        cut = choice[int(rng.integers(len(choice)))]
        _compare(full, strategy.targets(data.until(cut)), cut)
        _compare(full, strategy.targets(data.until_with_other_future(cut, rng)), cut)


def _compare(full: pl.DataFrame, other: pl.DataFrame, cut: date) -> None:
    before = pl.col("session") <= cut
    joined = full.filter(before).join(
        other.filter(before), on=["session", "symbol"], how="full", suffix="_cut", coalesce=True
    )
    same = (pl.col("weight") - pl.col("weight_cut")).abs() <= 1e-9 * (1 + pl.col("weight").abs())
    changed = joined.filter(~same.fill_null(False)).sort("session", "symbol")
    if changed.height:
        row = changed.row(0, named=True)
        raise LookAheadError(
            f"the strategy's decision for {row['symbol']} on {row['session']} changes with data after {cut}",
            value=f"weight {row['weight']} with all data, {row['weight_cut']} without the future",
            allowed="decisions that depend on rows up to their own date",
            fix="look for negative shifts, centred windows, statistics over all of the data, or a fixed list of names",
        )
