"""Adaptive conformal inference: the interval level follows the misses of the outcomes that have matured.

The state is not kept anywhere: it is recomputed from the outcomes table, so any past level can be reproduced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import DataError, LookAheadError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction.conformal import Calibrator


class AdaptiveSettings(Parameters):
    """Step and memory of the adaptation."""

    rate: float = Field(
        default=0.02, ge=0.0, le=0.5, description="step of the level per matured session (0 = not adaptive)"
    )
    memory: int = Field(default=250, ge=20, le=5000, description="matured sessions that the level depends on")
    scope: Literal["market", "symbol"] = Field(default="market", description="one level for all symbols, or one each")
    smallest_miss: float = Field(default=0.01, gt=0.0, lt=0.5, description="the miss rate aimed at is kept above this")
    largest_miss: float = Field(default=0.4, gt=0.0, lt=0.5, description="the miss rate aimed at is kept below this")


@dataclass(frozen=True)
class AdaptiveLevel:
    """The coverage to aim at now.

    Attributes
    ----------
    as_of
        Outcomes known at this date were used.
    level
        Coverage for symbols that are not in ``by_symbol``.
    by_symbol
        Coverage of each symbol (empty when the scope is the market).
    sessions
        Matured sessions used (the market's, or the most of any symbol).
    """

    as_of: date
    level: float
    by_symbol: dict[str, float]
    sessions: int

    def of(self, symbols: pl.Series) -> np.ndarray:
        """Level of each symbol, shape (rows,)."""
        return np.array([self.by_symbol.get(s, self.level) for s in symbols.to_list()], dtype=np.float64)


def adapted_miss(misses: np.ndarray, target: float, settings: AdaptiveSettings) -> float:
    """Miss rate to aim at after a sequence of miss shares (oldest first, one a session).

    ``a[t+1] = a[t] + rate (target - miss[t])`` from ``a = target``, over the last ``memory`` sessions.

    Notes
    -----
    Gibbs and Candes (2021), "Adaptive conformal inference under distribution shift", NeurIPS 34, eq. 2; with several
    symbols a session's error is the share of misses. The finite memory makes the level independent of where the
    table begins.
    """
    miss = target
    for share in misses[-settings.memory :].tolist():
        miss = miss + settings.rate * (target - share)
        miss = min(max(miss, settings.smallest_miss), settings.largest_miss)
    return miss


def update(outcomes: pl.DataFrame, coverage: float, settings: AdaptiveSettings, as_of: date) -> AdaptiveLevel:
    """The level in force at ``as_of``, from outcomes matured by then alone.

    Parameters
    ----------
    outcomes
        ``symbol, label_session, inside`` at least.
    coverage
        The target coverage.
    settings
        Step, memory and scope.
    as_of
        Outcomes with ``label_session`` after it are not looked at.

    Raises
    ------
    DataError
        A column is missing.
    """
    missing = [c for c in ("symbol", "label_session", "inside") if c not in outcomes.columns]
    if missing:
        raise DataError("outcomes lack columns", value=missing, allowed="symbol, label_session, inside")
    target = 1.0 - coverage
    known = outcomes.filter((pl.col("label_session") <= as_of) & pl.col("inside").is_not_null())
    market = _shares(known, [])
    level = 1.0 - adapted_miss(market["miss"].to_numpy(), target, settings)
    if settings.scope == "market":
        return AdaptiveLevel(as_of, level, {}, min(market.height, settings.memory))
    by_symbol = {
        str(symbol): 1.0 - adapted_miss(part["miss"].to_numpy(), target, settings)
        for (symbol,), part in _shares(known, ["symbol"]).group_by("symbol", maintain_order=True)
    }
    return AdaptiveLevel(as_of, coverage, by_symbol, min(market.height, settings.memory))


def _shares(known: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Share of misses a matured session; counts are integers, so the order of rows does not matter."""
    return (
        known.group_by([*keys, "label_session"])
        .agg((~pl.col("inside")).sum().cast(pl.Int64).alias("missed"), pl.len().cast(pl.Int64).alias("all"))
        .sort([*keys, "label_session"])
        .with_columns((pl.col("missed") / pl.col("all")).alias("miss"))
    )


def simulate(
    oos: pl.DataFrame, calibrator: Calibrator | Callable[[date], Calibrator | None], settings: AdaptiveSettings
) -> pl.DataFrame:
    """Adaptive intervals over a history of out-of-sample predictions, as they would have been published.

    Parameters
    ----------
    oos
        ``symbol, session, prediction, label, label_session, volatility``; rows with a missing value are left out.
    calibrator
        Residual distribution, or what gives the one in force on a session (``None``: no interval on that session).
        For an honest history it was fitted on outcomes known by then.
    settings
        Step and memory; the scope is the market.

    Returns
    -------
    polars.DataFrame
        The rows with ``lower, upper, interval_level, inside``, sorted by session and symbol. The level of a session
        uses outcomes with ``label_session <= session`` only.

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
    frame = oos.drop_nulls(needed).filter(pl.col("volatility") > 0).sort("session", "symbol")
    early = frame.filter(pl.col("label_session") <= pl.col("session"))
    if early.height:
        raise LookAheadError("an outcome is dated at or before its prediction", value=early.row(0))
    columns = (frame[name].to_numpy() for name in ("prediction", "volatility", "label"))
    prediction, volatility, label = columns
    closing = frame["label_session"].cast(pl.Int32).to_numpy()
    days = frame["session"].unique().sort()
    starts = np.append(
        np.searchsorted(frame["session"].cast(pl.Int32).to_numpy(), days.cast(pl.Int32).to_numpy()), frame.height
    )
    lower, upper, levels = (np.full(frame.height, np.nan) for _ in range(3))
    pending: dict[int, tuple[int, int]] = {}
    shares: list[float] = []
    for i, (day, number) in enumerate(zip(days.to_list(), days.cast(pl.Int32).to_list(), strict=True)):
        for closed in sorted(d for d in pending if d <= number):
            missed, every = pending.pop(closed)
            shares.append(missed / every)
        used = calibrator if isinstance(calibrator, Calibrator) else calibrator(day)
        if used is None:
            continue
        rows = slice(starts[i], starts[i + 1])
        miss = adapted_miss(np.asarray(shares[-settings.memory :]), 1.0 - used.coverage, settings)
        levels[rows] = 1.0 - miss
        lower[rows], upper[rows] = used.interval(prediction[rows], volatility[rows], 1.0 - miss)
        wrong = (label[rows] < lower[rows]) | (label[rows] > upper[rows])
        for closed in np.unique(closing[rows]).tolist():
            of_day = closing[rows] == closed
            missed, every = pending.get(closed, (0, 0))
            pending[closed] = (missed + int(wrong[of_day].sum()), every + int(of_day.sum()))
    return frame.with_columns(
        pl.Series("lower", lower),
        pl.Series("upper", upper),
        pl.Series("interval_level", levels),
        pl.Series("inside", (label >= lower) & (label <= upper)),
    ).filter(pl.col("interval_level").is_not_nan())
