"""The gate before publication: every check that scored predictions must pass before readers may see them.

A check only judges. Replacing the publication, and keeping the last good one when a check fails, is the shell's work.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl

from stock_pipeline.core.prediction.publication_checks import (
    CheckResult,
    PublicationSettings,
    completeness,
    continuity,
    differences,
    every_row,
    from_champion,
    judge,
    no_repeats,
    numbers_finite,
    one_model,
    plausibility,
)
from stock_pipeline.core.prediction.schema import PREDICTION_SCHEMA

__all__ = ["CheckResult", "PublicationSettings", "may_publish", "publication_checks"]


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
        judge("columns_are_complete", not absent, f"missing columns: {absent or 'none'}", missing=absent),
        judge("predictions_exist", scored.height > 0, f"{scored.height} predictions", rows=scored.height),
    ]
    if absent or not scored.height:
        return checks
    newest: Any = scored["session"].max()
    checks += [
        no_repeats(scored, "ids_are_unique", ["prediction_id"]),
        no_repeats(scored, "keys_are_unique", ["symbol", "session", "horizon"]),
        every_row(scored, "numbers_are_finite", numbers_finite(), "values that are missing or not finite"),
        every_row(
            scored,
            "intervals_are_ordered",
            (pl.col("lower") <= pl.col("expected_return"))
            & (pl.col("expected_return") <= pl.col("upper"))
            & (pl.col("lower") < pl.col("upper")),
            "intervals out of order or without width",
        ),
        every_row(
            scored, "confidence_is_a_share", pl.col("confidence").is_between(0.0, 1.0), "confidences outside [0, 1]"
        ),
        every_row(
            scored,
            "ranks_are_complete",
            pl.col("rank").sort().over("session") == pl.int_range(1, pl.len() + 1).over("session"),
            "ranks that are not 1..n within their session",
        ),
        every_row(scored, "no_session_after_the_bars", pl.col("session") <= newest_bar, f"sessions after {newest_bar}"),
        judge(
            "predictions_are_fresh",
            newest >= (expected_session or newest_bar),
            f"newest prediction {newest}, expected {expected_session or newest_bar}",
            newest=str(newest),
            expected=str(expected_session or newest_bar),
        ),
        completeness(scored, universe, unpredicted, chosen),
        one_model(scored),
        plausibility(scored, chosen),
        differences(scored),
        from_champion(scored),
    ]
    return checks + continuity(scored, previous_published, chosen)
