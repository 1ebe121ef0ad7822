"""Checks of predictions: the gate before publication, and what outcomes say afterwards."""

from __future__ import annotations

import dagster as dg
import polars as pl

from stock_pipeline.core.prediction.coverage import coverage_check
from stock_pipeline.core.prediction.publish import CheckResult, publication_checks
from stock_pipeline.orchestration import inputs
from stock_pipeline.orchestration.checks.base import ERROR, WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table
from stock_pipeline.orchestration.resources import Platform

SCORED, PUBLISHED, OUTCOMES = "predictions/scored", "predictions/published", "predictions/outcomes"

SCORED_SPECS = [
    spec(SCORED, "intervals_hold_the_expectation", "lower <= expected return <= upper, all finite.", blocking=True),
]
GATE = {
    "columns_are_complete": "Every column of the publication is there.",
    "predictions_exist": "There is something to publish.",
    "ids_are_unique": "No prediction id repeats.",
    "keys_are_unique": "One prediction for each symbol, session and horizon.",
    "numbers_are_finite": "No number is missing, NaN or infinite.",
    "intervals_are_ordered": "lower <= expected return <= upper, with a width.",
    "confidence_is_a_share": "Confidence lies in [0, 1].",
    "ranks_are_complete": "Ranks are 1..n within each session.",
    "no_session_after_the_bars": "Nothing is predicted for a session without bars.",
    "predictions_are_fresh": "The newest session of the bars is predicted.",
    "universe_is_complete": "Nearly all predictable members are predicted.",
    "one_model_a_session_and_arm": "A session is not a mixture of models, features or data versions.",
    "expected_returns_are_plausible": "No expected return is many volatilities away from zero.",
    "model_tells_symbols_apart": "The model does not say the same of every symbol.",
    "champion_predicts": "No fallback was needed.",
    "expected_returns_continue": "The mean does not jump from the previous publication.",
    "interval_widths_continue": "Interval widths do not jump from the previous publication.",
}
PUBLISHED_SPECS = [spec(PUBLISHED, name, text) for name, text in GATE.items()]
OUTCOME_SPECS = [spec(OUTCOMES, "coverage_is_as_promised", "Intervals held as many outcomes as they promised.")]


def scored(rows: pl.DataFrame) -> list[dg.AssetCheckResult]:
    """Judge the stored predictions in force."""
    good = pl.col("expected_return").is_between(pl.col("lower"), pl.col("upper")) & pl.all_horizontal(
        pl.col("lower", "upper", "expected_return").is_finite()
    )
    bad = rows.filter(~good.fill_null(False))
    return [result(SCORED, "intervals_hold_the_expectation", bad.is_empty(), metadata={"rows": bad.height})]


def gate(platform: Platform, rows: pl.DataFrame) -> list[CheckResult]:
    """Judge the newest session before it replaces the publication."""
    lake = platform.lake
    newest_bar = lake.last_session(inputs.VALIDATED)
    assert newest_bar is not None
    now = rows.filter(pl.col("session") == rows["session"].max())
    previous = lake.read(PUBLISHED) if lake.exists(PUBLISHED) else None
    unpredicted = lake.read("predictions/unpredicted").filter(pl.col("session") == rows["session"].max())
    universe = pl.concat([now.select("symbol", "session"), unpredicted.select("symbol", "session")])
    return publication_checks(
        now,
        previous,
        platform.settings.predictions.publication,
        universe=universe,
        newest_bar=newest_bar,
        unpredicted=unpredicted,
    )


def gate_results(verdicts: list[CheckResult]) -> list[dg.AssetCheckResult]:
    """Turn the gate's verdicts into check results; those that could not be judged fail with their reason."""
    by_name = {verdict.name: verdict for verdict in verdicts}
    results = []
    for name in GATE:
        verdict = by_name.get(name)
        if verdict is None:
            results.append(result(PUBLISHED, name, False, description="not judged: there are no rows or columns"))
            continue
        severity = ERROR if verdict.severity == "error" else WARN
        facts = {key: str(value) for key, value in verdict.metadata.items()}
        results.append(
            result(PUBLISHED, name, verdict.passed, severity=severity, description=verdict.message, metadata=facts)
        )
    return results


def outcomes(platform: Platform, rows: pl.DataFrame) -> list[dg.AssetCheckResult]:
    """Judge realised coverage overall, by year, symbol and volatility regime."""
    settings = platform.settings.predictions
    if rows.is_empty():
        return [
            result(
                OUTCOMES,
                "coverage_is_as_promised",
                True,
                severity=WARN,
                description="no outcome is known yet",
                metadata={"outcomes": 0},
            )
        ]
    verdict = coverage_check(rows, settings.conformal.coverage, settings.coverage)
    overall = verdict.table.filter(pl.col("by") == "overall")
    return [
        result(
            OUTCOMES,
            "coverage_is_as_promised",
            verdict.passed,
            severity=WARN,
            description="; ".join(verdict.reasons) or "coverage is within tolerance everywhere",
            metadata={
                "coverage": float(overall["coverage"][0]),
                "target": settings.conformal.coverage,
                "outcomes": rows.height,
                "groups": dg.MetadataValue.md(markdown_table(verdict.table)),
            },
        )
    ]
