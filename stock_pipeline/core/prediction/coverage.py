"""Do the intervals hold what they promise? Realised coverage of matured outcomes, with honest uncertainty.

Outcomes overlap in time and symbols move together, so their number overstates what is known; the bounds account for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.parameters import Parameters

Group = Literal["overall", "year", "symbol", "regime"]
GROUPS: tuple[Group, ...] = ("overall", "year", "symbol", "regime")
REGIMES = ("calm", "middle", "wild")
"""Terciles of the volatility known when the prediction was made."""


class CoverageSettings(Parameters):
    """When realised coverage is wrong."""

    tolerance: float = Field(
        default=0.03, gt=0.0, lt=0.5, description="allowed distance from the target, overall and by regime"
    )
    group_tolerance: float = Field(default=0.08, gt=0.0, lt=0.5, description="allowed distance for a year or a symbol")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, description="of the bounds; a miss must also be significant"
    )
    minimum_outcomes: int = Field(default=250, ge=20, description="a group with fewer outcomes is not judged")


@dataclass(frozen=True)
class CoverageVerdict:
    """Result of `coverage_check`.

    Attributes
    ----------
    passed
        No judged group is significantly below the target by more than its tolerance. Intervals that are too wide are
        reported among the reasons but do not fail: they mislead nobody into risk.
    judged
        Number of groups with enough outcomes; 0 passes with a reason, because nothing is known.
    reasons
        One sentence for each group that is out of tolerance.
    table
        All groups, as `by_group` returns them.
    """

    passed: bool
    judged: int
    reasons: tuple[str, ...]
    table: pl.DataFrame


def by_group(
    outcomes: pl.DataFrame, by: Group = "overall", *, horizon: int | None = None, confidence: float = 0.95
) -> pl.DataFrame:
    """Realised coverage of each year, symbol or volatility regime, or of all.

    Parameters
    ----------
    outcomes
        ``symbol, session, inside`` and ``volatility`` for regimes; ``horizon`` if it is not given.
    by
        The grouping.
    horizon
        Sessions of the forward return: how long outcomes overlap.
    confidence
        Of the two-sided bounds.

    Returns
    -------
    polars.DataFrame
        ``by, group, outcomes, effective_outcomes, coverage, lower_bound, upper_bound``, sorted by group.

    Raises
    ------
    DataError
        A column is missing.
    ConfigurationError
        Unknown grouping.

    Notes
    -----
    Bounds: Wilson (1927), JASA 22, with the effective number of outcomes ``p (1 - p) / var``; ``var`` is the
    Newey-West (1987, Econometrica 55) variance of the ratio of covered to all outcomes a session, with
    ``max(horizon, 4 (T / 100)^(2/9))`` lags.
    """
    if by not in GROUPS:
        raise ConfigurationError("unknown grouping of coverage", value=by, allowed=", ".join(GROUPS))
    needed = ["symbol", "session", "inside", *(["volatility"] if by == "regime" else [])]
    missing = [c for c in needed if c not in outcomes.columns]
    if missing:
        raise DataError("outcomes lack columns", value=missing, allowed=", ".join(needed))
    longest = outcomes["horizon"].max() if "horizon" in outcomes.columns else None
    lags = horizon if horizon is not None else longest if isinstance(longest, int) else 1
    frame = outcomes.filter(pl.col("inside").is_not_null()).with_columns(_group(outcomes, by).alias("group"))
    daily = (
        frame.drop_nulls("group")
        .group_by("group", "session")
        .agg(pl.col("inside").sum().cast(pl.Float64).alias("inside"), pl.len().cast(pl.Float64).alias("all"))
        .sort("group", "session")
    )
    rows = []
    for (group,), part in daily.group_by("group", maintain_order=True):
        inside, every = part["inside"].to_numpy(), part["all"].to_numpy()
        share = float(inside.sum() / every.sum())
        effective = _effective(inside, every, share, lags)
        low, high = wilson(share, effective, confidence)
        rows.append((by, str(group), int(every.sum()), effective, share, low, high))
    schema = {
        "by": pl.String,
        "group": pl.String,
        "outcomes": pl.Int64,
        "effective_outcomes": pl.Float64,
        "coverage": pl.Float64,
        "lower_bound": pl.Float64,
        "upper_bound": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _group(outcomes: pl.DataFrame, by: Group) -> pl.Expr:
    if by == "year":
        return pl.col("session").dt.year().cast(pl.String)
    if by == "symbol":
        return pl.col("symbol")
    if by == "overall":
        return pl.lit("all")
    known = outcomes.filter(pl.col("inside").is_not_null())["volatility"].drop_nulls()
    low, high = known.quantile(1 / 3, "linear"), known.quantile(2 / 3, "linear")
    return (
        pl.when(pl.col("volatility").is_null())
        .then(None)
        .when(pl.col("volatility") <= low)
        .then(pl.lit(REGIMES[0]))
        .when(pl.col("volatility") <= high)
        .then(pl.lit(REGIMES[1]))
        .otherwise(pl.lit(REGIMES[2]))
    )


def _effective(inside: np.ndarray, every: np.ndarray, share: float, horizon: int) -> float:
    sessions, total = inside.size, float(every.sum())
    if not 0.0 < share < 1.0 or sessions < 3:
        # no variation to estimate from: count non-overlapping sessions
        return max(1.0, sessions / max(horizon, 1))
    influence = (inside - share * every) / every.mean()
    lags = min(sessions - 1, max(horizon, math.floor(4.0 * (sessions / 100.0) ** (2.0 / 9.0))))
    spread = float(influence @ influence)
    for k in range(1, lags + 1):
        spread += 2.0 * (1.0 - k / (lags + 1.0)) * float(influence[k:] @ influence[:-k])
    variance = spread / sessions**2
    if variance <= 0.0:
        return total
    return float(min(total, max(1.0, share * (1.0 - share) / variance)))


def wilson(share: float, count: float, confidence: float) -> tuple[float, float]:
    """Wilson score bounds of a proportion observed in ``count`` independent trials."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre = (share + z * z / (2.0 * count)) / (1.0 + z * z / count)
    half = z / (1.0 + z * z / count) * math.sqrt(share * (1.0 - share) / count + z * z / (4.0 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def coverage_check(outcomes: pl.DataFrame, target: float, settings: CoverageSettings | None = None) -> CoverageVerdict:
    """Judge realised coverage overall and per regime (tight tolerance), per year and per symbol (wide tolerance).

    A group is out when its coverage is further from the target than the tolerance *and* its bounds exclude the
    target. Groups with fewer than ``minimum_outcomes`` are not judged.
    """
    chosen = settings or CoverageSettings()
    table = pl.concat([by_group(outcomes, by, confidence=chosen.confidence) for by in GROUPS])
    judged = table.filter(pl.col("outcomes") >= chosen.minimum_outcomes)
    reasons, passed = [], True
    for row in judged.iter_rows(named=True):
        allowed = chosen.tolerance if row["by"] in ("overall", "regime") else chosen.group_tolerance
        gap = row["coverage"] - target
        if abs(gap) <= allowed or row["lower_bound"] <= target <= row["upper_bound"]:
            continue
        name = "overall" if row["by"] == "overall" else f"{row['by']} {row['group']}"
        word = "below" if gap < 0 else "above"
        reasons.append(
            f"{name}: {row['coverage']:.1%} of {row['outcomes']} outcomes inside, {word} the target {target:.0%} "
            f"by more than {allowed:.0%} (bounds {row['lower_bound']:.1%} to {row['upper_bound']:.1%})"
        )
        passed = passed and gap > 0
    if not judged.height:
        reasons.append(f"not judged: fewer than {chosen.minimum_outcomes} matured outcomes ({outcomes.height})")
    return CoverageVerdict(passed, judged.height, tuple(reasons), table)
