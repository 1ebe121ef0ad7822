"""Intervals for a whole history of out-of-sample predictions, each made from what was known at its session.

It answers "what coverage would users have had", before anything was published. Live outcomes are in ``outcomes.py``.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.prediction.adaptive import AdaptiveSettings, simulate
from stock_pipeline.core.prediction.conformal import Calibrator, ConformalSettings, fit


def walk_forward_intervals(
    oos: pl.DataFrame,
    *,
    horizon: int,
    settings: ConformalSettings | None = None,
    adaptive: AdaptiveSettings | None = None,
) -> pl.DataFrame:
    """Intervals of a history: recalibrated in each year's first session, the level adapted as outcomes matured.

    Parameters
    ----------
    oos
        ``symbol, session, prediction, label, label_session, volatility`` (annualised), out of sample; rows with a
        missing value are left out.
    horizon
        Sessions of the forward return.
    settings
        Coverage, sides, fewest residuals.
    adaptive
        Step and memory of the level; ``None``: the defaults. ``AdaptiveSettings(rate=0)`` keeps the level fixed.

    Returns
    -------
    polars.DataFrame
        The rows with ``lower, upper, interval_level, inside, horizon``, sorted by session and symbol, without the
        years that begin with too few known outcomes. `stock_pipeline.core.prediction.coverage` judges it.

    Raises
    ------
    DataError
        A column is missing.
    LookAheadError
        A label is dated at or before its prediction.
    """
    needed = ("symbol", "session", "prediction", "label", "label_session", "volatility")
    missing = [c for c in needed if c not in oos.columns]
    if missing:
        raise DataError("predictions lack columns", value=missing, allowed=", ".join(needed))
    chosen = settings or ConformalSettings()
    firsts = oos.group_by(pl.col("session").dt.year().alias("year")).agg(pl.col("session").min().alias("first"))
    in_force: dict[int, Calibrator | None] = {
        year: _known(oos, first, horizon, chosen) for year, first in firsts.sort("year").iter_rows()
    }
    made = simulate(oos, lambda day: in_force[day.year], adaptive or AdaptiveSettings())
    return made.with_columns(pl.lit(horizon, pl.Int64).alias("horizon"))


def _known(oos: pl.DataFrame, day: date, horizon: int, settings: ConformalSettings) -> Calibrator | None:
    try:
        return fit(oos, horizon=horizon, settings=settings, as_of=day)
    except DataError:
        return None
