"""The single predicates of the publication gate, each from a frame to a `CheckResult`.

Which of them make the gate, and what it means when one fails, is in ``publish.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl
from pydantic import Field

from stock_pipeline.core.parameters import Parameters

EXPLAINED = ("too_little_history", "not_a_member", "quarantined_today", "no_bar_today")
"""Reasons for which a symbol may lack a prediction without making the publication incomplete."""


class PublicationSettings(Parameters):
    """What a publication must satisfy."""

    min_completeness: float = Field(default=0.95, gt=0.0, le=1.0, description="share of predictable symbols predicted")
    min_explained: float = Field(
        default=0.5, ge=0.0, le=1.0, description="share of all symbols predicted, whatever reason"
    )
    max_standardised: float = Field(default=3.0, gt=0.0, description="largest expected return in horizon volatilities")
    max_mean_shift: float = Field(
        default=0.5,
        gt=0.0,
        description="shift of the mean expected return from the last session, in horizon volatilities",
    )
    max_width_ratio: float = Field(
        default=5.0, gt=1.0, description="change of the median interval width from the last session, as a factor"
    )
    sessions_per_year: int = Field(default=252, ge=200, le=366, description="that annualised the volatility")


@dataclass(frozen=True)
class CheckResult:
    """One predicate and its verdict.

    Attributes
    ----------
    name
        What is true when it passes, such as ``intervals_are_ordered``.
    passed
        The verdict.
    severity
        ``error`` blocks the publication, ``warning`` only tells.
    message
        One sentence with the numbers.
    metadata
        The numbers themselves.
    """

    name: str
    passed: bool
    severity: Literal["error", "warning"]
    message: str
    metadata: dict[str, Any] = field(default_factory=dict)


def judge(
    name: str, passed: bool, message: str, severity: Literal["error", "warning"] = "error", **metadata: Any
) -> CheckResult:
    """Make a result; further keywords become its metadata."""
    return CheckResult(name, bool(passed), severity, message, metadata)


def every_row(frame: pl.DataFrame, name: str, good: pl.Expr, what: str) -> CheckResult:
    """Pass when ``good`` holds in every row (null counts as bad); ``what`` names the bad rows."""
    bad = frame.with_columns(good.fill_null(False).alias("__good")).filter(~pl.col("__good"))
    examples = bad["symbol"].head(5).to_list()
    return judge(name, bad.height == 0, f"{bad.height} {what}", rows=bad.height, examples=examples)


def no_repeats(frame: pl.DataFrame, name: str, keys: list[str]) -> CheckResult:
    """Pass when no combination of ``keys`` occurs twice."""
    twice = int(frame.select(keys).is_duplicated().sum())
    return judge(name, twice == 0, f"{twice} rows repeat {', '.join(keys)}", rows=twice)


def numbers_finite() -> pl.Expr:
    """Whether the numbers that every row must have are there and finite."""
    names = ("expected_return", "lower", "upper", "confidence", "volatility", "close")
    return pl.all_horizontal(pl.col(c).is_not_null() & pl.col(c).is_finite().fill_null(False) for c in names)


def completeness(
    scored: pl.DataFrame, universe: pl.DataFrame, unpredicted: pl.DataFrame | None, settings: PublicationSettings
) -> CheckResult:
    """Pass when nearly all predictable symbols, and enough of all symbols, are predicted in every session.

    A symbol that is unpredicted for one of the `EXPLAINED` reasons is not predictable.
    """
    keys = ["symbol", "session"]
    wanted = universe.select(keys).unique().filter(pl.col("session").is_in(scored["session"].unique().implode()))
    missing = wanted.join(scored.select(keys), on=keys, how="anti")
    unexplained = missing
    if unpredicted is not None:
        explained = unpredicted.filter(pl.col("reason").is_in(EXPLAINED))
        unexplained = missing.join(explained.select(keys), on=keys, how="anti")
    by_session = (
        wanted.group_by("session")
        .len("wanted")
        .join(missing.group_by("session").len("missing"), on="session", how="left")
        .join(unexplained.group_by("session").len("unexplained"), on="session", how="left")
        .with_columns(pl.col("missing", "unexplained").fill_null(0).cast(pl.Int64), pl.col("wanted").cast(pl.Int64))
        .with_columns(
            (1.0 - pl.col("missing") / pl.col("wanted")).alias("all_share"),
            (
                1.0
                - pl.col("unexplained") / (pl.col("wanted") - pl.col("missing") + pl.col("unexplained")).clip(1, None)
            ).alias("share"),
        )
        .sort("session")
    )
    if not by_session.height:
        return judge("universe_is_complete", False, "no predicted session is in the universe", missing=0)
    share, every = float(by_session["share"].min()), float(by_session["all_share"].min())  # type: ignore[arg-type]
    names = sorted(unexplained["symbol"].unique().to_list())[:10]
    return judge(
        "universe_is_complete",
        share >= settings.min_completeness and every >= settings.min_explained,
        f"{share:.1%} of predictable and {every:.1%} of all symbols predicted (needed {settings.min_completeness:.0%} "
        f"and {settings.min_explained:.0%})",
        completeness=share,
        of_all=every,
        missing=names,
    )


def one_model(scored: pl.DataFrame) -> CheckResult:
    """Pass when each session and arm has one model, feature set, data version, fallback level and horizon."""
    kinds = ["model_name", "model_version", "feature_set_hash", "lake_version", "fallback_level"]
    mixed = (
        scored.group_by("session", "arm")
        .agg(pl.struct(kinds).n_unique().alias("models"), pl.col("horizon").n_unique().alias("horizons"))
        .filter((pl.col("models") > 1) | (pl.col("horizons") > 1))
    )
    return judge(
        "one_model_a_session_and_arm",
        mixed.height == 0,
        f"{mixed.height} sessions and arms mix models, features, data versions or horizons",
        mixed=mixed.height,
    )


def plausibility(scored: pl.DataFrame, settings: PublicationSettings) -> CheckResult:
    """Pass when no expected return is more horizon volatilities from zero than allowed."""
    scale = pl.col("volatility") * (pl.col("horizon") / settings.sessions_per_year).sqrt()
    good = pl.col("expected_return").abs() <= settings.max_standardised * scale
    return every_row(
        scored,
        "expected_returns_are_plausible",
        good,
        f"expected returns beyond {settings.max_standardised} horizon volatilities",
    )


def differences(scored: pl.DataFrame) -> CheckResult:
    """Warn of a model that gives all symbols of a session the same expected return."""
    flat = (
        scored.filter(pl.col("fallback_level") < 2)
        .group_by("session")
        .agg(pl.col("expected_return").n_unique().alias("values"), pl.len().alias("rows"))
        .filter((pl.col("values") == 1) & (pl.col("rows") > 2))
    )
    return judge(
        "model_tells_symbols_apart",
        flat.height == 0,
        f"{flat.height} sessions in which all symbols have the same expected return",
        "warning",
        sessions=flat.height,
    )


def from_champion(scored: pl.DataFrame) -> CheckResult:
    """Warn of predictions from a fallback, with the reasons."""
    fallen = scored.filter(pl.col("fallback_level") > 0)
    reasons = fallen["fallback_reason"].drop_nulls().unique().sort().to_list()
    return judge(
        "champion_predicts",
        fallen.height == 0,
        f"{fallen.height} predictions come from a fallback{': ' + ' | '.join(reasons) if reasons else ''}",
        "warning",
        rows=fallen.height,
        reasons=reasons,
    )


def _width(frame: pl.DataFrame) -> float:
    median = (frame["upper"] - frame["lower"]).median()
    return float(median) if isinstance(median, int | float) else 0.0


def continuity(scored: pl.DataFrame, previous: pl.DataFrame | None, settings: PublicationSettings) -> list[CheckResult]:
    """Pass when mean and interval width do not jump from the newest session that was published before.

    Means are compared only where both come from a model and there are at least three symbols.
    """
    name, other = "expected_returns_continue", "interval_widths_continue"
    now = scored.filter(pl.col("session") == scored["session"].max())
    if previous is None or not previous.height:
        return [judge(n, True, "nothing was published before") for n in (name, other)]
    past = previous.filter(pl.col("session") < now["session"][0])
    if not past.height:
        return [judge(n, True, "no earlier session was published") for n in (name, other)]
    past = past.filter(pl.col("session") == past["session"].max())
    widths = _width(now), _width(past)
    ratio = max(widths) / min(widths) if min(widths) > 0 else float("inf")
    widths_check = judge(
        other,
        ratio <= settings.max_width_ratio,
        f"median interval width {widths[1]:.4f} -> {widths[0]:.4f}",
        "error",
        now=widths[0],
        previous=widths[1],
    )
    kinds = [set(f["fallback_level"].unique().to_list()) for f in (now, past)]
    if 2 in kinds[0] | kinds[1] or min(now.height, past.height) < 3:
        return [judge(name, True, "not comparable: the naive fallback, or fewer than three symbols"), widths_check]
    means = [float(f["expected_return"].mean()) for f in (now, past)]  # type: ignore[arg-type]
    scale = (now["volatility"] * (now["horizon"] / settings.sessions_per_year).sqrt()).median()
    shift = abs(means[0] - means[1]) / scale if isinstance(scale, float) and scale > 0 else float("inf")
    return [
        judge(
            name,
            shift <= settings.max_mean_shift,
            f"mean expected return {means[1]:.5f} -> {means[0]:.5f}, {shift:.2f} horizon volatilities",
            "error",
            shift=shift,
            mean=means[0],
            previous_mean=means[1],
        ),
        widths_check,
    ]
