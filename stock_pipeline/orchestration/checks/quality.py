"""Whether data quality declines: the newest scores against their usual level, with remedies where they fell."""

from __future__ import annotations

import dagster as dg
import polars as pl

from stock_pipeline.core.quality.registry import all_rules
from stock_pipeline.orchestration.checks.base import WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table
from stock_pipeline.orchestration.resources import Platform

VALIDATED_BARS, SCORES, FINDINGS = "market/validated_bars", "market/quality_scores", "market/quality_findings"
NAME = "quality_does_not_decline"
RECENT, USUAL = 5, 250
"""Sessions whose mean score is judged, and sessions before them that tell the usual level."""
LEAST_DROP, SPREADS = 2.0, 3.0
"""A drop counts beyond two points and beyond three robust standard deviations of the usual sessions' means."""

SPEC = spec(
    VALIDATED_BARS, NAME, f"The mean quality score of the newest {RECENT} sessions is not below its usual level."
)


def decline(scores: pl.DataFrame) -> tuple[float, float, float] | None:
    """Recent mean score, usual level and the drop that is allowed; ``None`` where there is too little to compare.

    Parameters
    ----------
    scores
        ``session, score`` by symbol and session.
    """
    means = scores.group_by("session").agg(pl.col("score").mean()).sort("session")["score"]
    recent, usual = means.tail(RECENT), means.head(max(0, means.len() - RECENT)).tail(USUAL)
    if usual.len() < RECENT:
        return None
    level: float = usual.median()  # type: ignore[assignment]
    spread: float = 1.4826 * (usual - level).abs().median()  # type: ignore[assignment, operator]
    return float(recent.mean()), level, max(LEAST_DROP, SPREADS * spread)  # type: ignore[arg-type]


def evaluate(platform: Platform) -> dg.AssetCheckResult:
    """Judge the stored scores as a whole, and say which rules are behind a decline and what to do about them."""
    lake = platform.lake
    found = decline(lake.read(SCORES, columns=["session", "score"]))
    if found is None:
        return result(VALIDATED_BARS, NAME, True, severity=WARN, description="too few sessions to compare")
    recent, level, allowed = found
    metadata = {"recent_score": recent, "usual_score": level, "allowed_drop": allowed}
    if level - recent <= allowed:
        return result(VALIDATED_BARS, NAME, True, severity=WARN, metadata=metadata)
    since = lake.sessions(SCORES)[-RECENT]
    rules = (
        lake.read(FINDINGS, start=since)
        .group_by("rule")
        .agg(findings=pl.len(), symbols=pl.col("symbol").n_unique(), example=pl.col("message").last())
        .sort("findings", "rule", descending=[True, False])
    )
    known = all_rules()
    remedies = [f"{rule}: {known[rule].remedy}" for rule in rules["rule"].head(3) if rule in known]
    counted = ", ".join(f"{rule} ({count})" for rule, count in rules.select("rule", "findings").head(3).iter_rows())
    return result(
        VALIDATED_BARS,
        NAME,
        False,
        severity=WARN,
        description=f"the mean score fell from {level:.1f} to {recent:.1f} over the sessions since {since}: {counted}",
        metadata={
            **metadata,
            "rules": dg.MetadataValue.md(markdown_table(rules)),
            "remedy": "; ".join(remedies) or "look at the findings in the quality report",
        },
    )
