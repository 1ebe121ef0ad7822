"""The gate before publication: every check that a scored session must pass before readers may see it.

A check only judges. Replacing the publication, and keeping the last good one when a check fails, is the shell's work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import polars as pl
from pydantic import Field

from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction.score import PREDICTION_SCHEMA

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
        default=5.0, gt=0.0, description="shift of the mean, in deviations of the previous session"
    )
    max_spread_ratio: float = Field(
        default=5.0, gt=1.0, description="change of the spread or of interval widths, as a factor"
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


def may_publish(checks: list[CheckResult]) -> bool:
    """Whether no blocking check failed."""
    return all(check.passed or check.severity == "warning" for check in checks)


def publication_checks(
    scored: pl.DataFrame,
    previous_published: pl.DataFrame | None,
    settings: PublicationSettings | None = None,
    *,
    universe: pl.DataFrame,
    newest_bar: date,
    expected_session: date | None = None,
    unpredicted: pl.DataFrame | None = None,
) -> list[CheckResult]:
    """Judge scored predictions before they replace the publication.

    Parameters
    ----------
    scored
        Predictions of one or more sessions.
    previous_published
        The publication in place, ``None`` for the first.
    settings
        Limits.
    universe
        ``symbol, session`` of all members, at least of the sessions in ``scored``.
    newest_bar
        Newest session of the validated bars.
    expected_session
        The session that should be predicted now (the newest closed one); ``None``: the newest bar.
    unpredicted
        Rows without prediction and their reasons; explained ones do not count as missing.

    Returns
    -------
    list of CheckResult
        All checks in a fixed order; only the first ones where there are no rows or columns to judge.
    """
    chosen = settings or PublicationSettings()
    absent = [c for c in PREDICTION_SCHEMA if c not in scored.columns]
    checks = [
        _check("columns_are_complete", not absent, f"missing columns: {absent or 'none'}", missing=absent),
        _check("predictions_exist", scored.height > 0, f"{scored.height} predictions", rows=scored.height),
    ]
    if absent or not scored.height:
        return checks
    newest: Any = scored["session"].max()
    checks += [
        _unique(scored, "ids_are_unique", ["prediction_id"]),
        _unique(scored, "keys_are_unique", ["symbol", "session", "horizon"]),
        _rows(scored, "numbers_are_finite", _finite(), "values that are missing or not finite"),
        _rows(
            scored,
            "intervals_are_ordered",
            (pl.col("lower") <= pl.col("expected_return"))
            & (pl.col("expected_return") <= pl.col("upper"))
            & (pl.col("lower") < pl.col("upper")),
            "intervals out of order or without width",
        ),
        _rows(scored, "confidence_is_a_share", pl.col("confidence").is_between(0.0, 1.0), "confidences outside [0, 1]"),
        _rows(
            scored,
            "ranks_are_complete",
            pl.col("rank").sort().over("session") == pl.int_range(1, pl.len() + 1).over("session"),
            "ranks that are not 1..n within their session",
        ),
        _rows(scored, "no_session_after_the_bars", pl.col("session") <= newest_bar, f"sessions after {newest_bar}"),
        _check(
            "predictions_are_fresh",
            newest >= (expected_session or newest_bar),
            f"newest prediction {newest}, expected {expected_session or newest_bar}",
            newest=str(newest),
            expected=str(expected_session or newest_bar),
        ),
        _complete(scored, universe, unpredicted, chosen),
        _one_model(scored),
        _plausible(scored, chosen),
        _spread(scored),
        _champion(scored),
    ]
    return checks + _continuity(scored, previous_published, chosen)


def _check(
    name: str, passed: bool, message: str, severity: Literal["error", "warning"] = "error", **metadata: Any
) -> CheckResult:
    return CheckResult(name, bool(passed), severity, message, metadata)


def _rows(frame: pl.DataFrame, name: str, good: pl.Expr, what: str) -> CheckResult:
    bad = frame.with_columns(good.fill_null(False).alias("__good")).filter(~pl.col("__good"))
    examples = bad["symbol"].head(5).to_list()
    return _check(name, bad.height == 0, f"{bad.height} {what}", rows=bad.height, examples=examples)


def _unique(frame: pl.DataFrame, name: str, keys: list[str]) -> CheckResult:
    twice = int(frame.select(keys).is_duplicated().sum())
    return _check(name, twice == 0, f"{twice} rows repeat {', '.join(keys)}", rows=twice)


def _finite() -> pl.Expr:
    names = ("expected_return", "lower", "upper", "confidence", "volatility", "close")
    return pl.all_horizontal(pl.col(c).is_not_null() & pl.col(c).is_finite().fill_null(False) for c in names)


def _complete(
    scored: pl.DataFrame, universe: pl.DataFrame, unpredicted: pl.DataFrame | None, settings: PublicationSettings
) -> CheckResult:
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
        return _check("universe_is_complete", False, "no predicted session is in the universe", missing=0)
    share, every = float(by_session["share"].min()), float(by_session["all_share"].min())  # type: ignore[arg-type]
    names = sorted(unexplained["symbol"].unique().to_list())[:10]
    return _check(
        "universe_is_complete",
        share >= settings.min_completeness and every >= settings.min_explained,
        f"{share:.1%} of predictable and {every:.1%} of all symbols predicted (needed {settings.min_completeness:.0%} "
        f"and {settings.min_explained:.0%})",
        completeness=share,
        of_all=every,
        missing=names,
    )


def _one_model(scored: pl.DataFrame) -> CheckResult:
    kinds = ["model_name", "model_version", "feature_set_hash", "lake_version", "fallback_level"]
    mixed = (
        scored.group_by("session", "arm")
        .agg(pl.struct(kinds).n_unique().alias("models"), pl.col("horizon").n_unique().alias("horizons"))
        .filter((pl.col("models") > 1) | (pl.col("horizons") > 1))
    )
    return _check(
        "one_model_a_session_and_arm",
        mixed.height == 0,
        f"{mixed.height} sessions and arms mix models, features, data versions or horizons",
        mixed=mixed.height,
    )


def _plausible(scored: pl.DataFrame, settings: PublicationSettings) -> CheckResult:
    scale = pl.col("volatility") * (pl.col("horizon") / settings.sessions_per_year).sqrt()
    good = pl.col("expected_return").abs() <= settings.max_standardised * scale
    return _rows(
        scored,
        "expected_returns_are_plausible",
        good,
        f"expected returns beyond {settings.max_standardised} horizon volatilities",
    )


def _spread(scored: pl.DataFrame) -> CheckResult:
    flat = (
        scored.filter(pl.col("fallback_level") < 2)
        .group_by("session")
        .agg(pl.col("expected_return").n_unique().alias("values"), pl.len().alias("rows"))
        .filter((pl.col("values") == 1) & (pl.col("rows") > 2))
    )
    return _check(
        "model_tells_symbols_apart",
        flat.height == 0,
        f"{flat.height} sessions in which all symbols have the same expected return",
        "warning",
        sessions=flat.height,
    )


def _champion(scored: pl.DataFrame) -> CheckResult:
    fallen = scored.filter(pl.col("fallback_level") > 0)
    reasons = fallen["fallback_reason"].drop_nulls().unique().sort().to_list()
    return _check(
        "champion_predicts",
        fallen.height == 0,
        f"{fallen.height} predictions come from a fallback{': ' + ' | '.join(reasons) if reasons else ''}",
        "warning",
        rows=fallen.height,
        reasons=reasons,
    )


def _continuity(
    scored: pl.DataFrame, previous: pl.DataFrame | None, settings: PublicationSettings
) -> list[CheckResult]:
    """Compare the newest session with the newest published one before it, where both come from a model."""
    name, other = "expected_returns_continue", "interval_widths_continue"
    now = scored.filter(pl.col("session") == scored["session"].max())
    if previous is None or not previous.height:
        return [_check(n, True, "nothing was published before") for n in (name, other)]
    past = previous.filter(pl.col("session") < now["session"][0])
    if not past.height:
        return [_check(n, True, "no earlier session was published") for n in (name, other)]
    past = past.filter(pl.col("session") == past["session"].max())
    width: Callable[[pl.DataFrame], float] = lambda f: float((f["upper"] - f["lower"]).median() or 0.0)  # type: ignore[arg-type]  # noqa: E731
    widths = width(now), width(past)
    ratio = max(widths) / min(widths) if min(widths) > 0 else float("inf")
    widths_check = _check(
        other,
        ratio <= settings.max_spread_ratio,
        f"median interval width {widths[1]:.4f} -> {widths[0]:.4f}",
        "error",
        now=widths[0],
        previous=widths[1],
    )
    kinds = [set(f["fallback_level"].unique().to_list()) for f in (now, past)]
    if 2 in kinds[0] | kinds[1] or min(now.height, past.height) < 3:
        return [_check(name, True, "not comparable: the naive fallback, or fewer than three symbols"), widths_check]
    means = [float(f["expected_return"].mean()) for f in (now, past)]  # type: ignore[arg-type]
    spreads = [float(f["expected_return"].std() or 0.0) for f in (now, past)]  # type: ignore[arg-type]
    unit = max(*spreads, 1e-6)
    shift = abs(means[0] - means[1]) / unit
    return [
        _check(
            name,
            shift <= settings.max_mean_shift,
            f"mean expected return {means[1]:.5f} -> {means[0]:.5f}, {shift:.1f} cross-sectional deviations",
            "error",
            shift=shift,
            mean=means[0],
            previous_mean=means[1],
        ),
        widths_check,
    ]
