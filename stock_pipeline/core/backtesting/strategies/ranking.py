"""From a score of each symbol to the targets of the best and worst names."""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.backtesting.strategies.protocol import as_targets


def rank_targets(scores: pl.DataFrame, *, top: int, bottom: int, gross: float) -> pl.DataFrame:
    """Equal weights of the ``top`` best scores, and short the ``bottom`` worst.

    Parameters
    ----------
    scores
        ``session, symbol, score``, one row a candidate and decision date, no nulls.
    top, bottom
        How many names on each side. When there are too few candidates for both sides, each side takes its half.
    gross
        Sum of absolute weights: all of it long when ``bottom`` is 0, else half on each side.

    Returns
    -------
    polars.DataFrame
        Targets; a name that was held after the previous decision and is not chosen again gets weight 0. Equal scores
        are ordered by symbol.
    """
    count = pl.len().over("session")
    ranked = scores.sort("session", "symbol").with_columns(
        best=pl.col("score").rank("ordinal", descending=True).over("session"),
        worst=pl.col("score").rank("ordinal").over("session"),
    )
    half = (count // 2) if bottom else count
    longs = pl.col("best") <= pl.min_horizontal(pl.lit(top), half)
    shorts = pl.col("worst") <= pl.min_horizontal(pl.lit(bottom), count // 2)
    side = gross / 2 if bottom else gross
    weighted = ranked.with_columns(side=pl.when(longs).then(1).when(shorts).then(-1).otherwise(0))
    chosen = weighted.filter(pl.col("side") != 0).with_columns(
        weight=pl.col("side") * side / pl.len().over("session", "side")
    )
    dates = scores.select("session").unique().sort("session").with_columns(next=pl.col("session").shift(-1))
    dropped = (
        chosen.select("session", "symbol")
        .join(dates, on="session")
        .filter(pl.col("next").is_not_null())
        .select(session="next", symbol="symbol")
        .join(chosen.select("session", "symbol"), on=["session", "symbol"], how="anti")
        .with_columns(weight=pl.lit(0.0))
    )
    return as_targets(pl.concat([chosen.select("session", "symbol", "weight"), dropped]))
