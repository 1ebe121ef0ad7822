"""Keeps a strategy inside the point-in-time universe: only members are bought, and who leaves is sold.

Bars of symbols before they join and after they leave stay visible: a strategy needs the past of a new member, and a
leaver must be sold at a real price.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.strategies.protocol import as_targets
from stock_pipeline.core.market import universe


def member_targets(targets: pl.DataFrame, data: MarketData) -> pl.DataFrame:
    """Restrict decisions to members.

    Parameters
    ----------
    targets
        Decisions of a strategy, as `Strategy.targets` gives them.
    data
        The data that they were made on; without a membership table nothing changes.

    Returns
    -------
    polars.DataFrame
        Decisions on sessions at which the symbol is a member. In its first session as a member a symbol gets the weight
        that the strategy wanted by then; in the first session after a span ends it gets weight 0 (and is sold at the
        next one), unless another span holds it.
    """
    if data.membership is None:
        return targets
    days = pl.DataFrame({"day": pl.Series(data.sessions, dtype=pl.Date)})
    spans = universe.check_membership(data.membership)
    inside = universe.members(spans, targets)
    starts = (
        spans.sort("start").join_asof(days, left_on="start", right_on="day", strategy="forward").drop_nulls("day")
    ).select("symbol", session="day")
    standing = (
        starts.unique()
        .sort("session")
        # both sides are sorted by session, and so within each symbol, which Polars does not check
        .join_asof(targets.sort("session"), on="session", by="symbol", strategy="backward", check_sortedness=False)
        .drop_nulls("weight")
    )
    ends = (
        spans.drop_nulls("end")
        .with_columns(after=pl.col("end") + pl.duration(days=1))
        .sort("after")
        .join_asof(days, left_on="after", right_on="day", strategy="forward")
        .drop_nulls("day")
        .select("symbol", session="day")
        .unique()
    )
    leaving = ends.join(universe.members(spans, ends), on=["symbol", "session"], how="anti")
    leaving = leaving.with_columns(weight=pl.lit(0.0))
    joined = pl.concat([as_targets(part) for part in (inside, universe.members(spans, standing), leaving)])
    return joined.unique(["session", "symbol"], keep="first", maintain_order=True).sort("session", "symbol")
