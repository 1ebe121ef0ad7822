"""Checks of models: enough evidence, nothing too good to be true, and a champion that loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.core.prediction.coverage import coverage_check
from stock_pipeline.orchestration.checks.base import ERROR, WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table, task_result, up_to_date
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.training import BASELINES, Election, intervals_table, newest_version

CANDIDATES, CHAMPION = "models/candidates", "models/champion"

CANDIDATE_SPECS = [
    spec(CANDIDATES, "candidates_beat_the_zero_forecast", "Out of sample, the squared error is below that of zero."),
    spec(CANDIDATES, "intervals_cover_as_promised", "Walk-forward intervals held as many outcomes as they promised."),
]
CHAMPION_SPECS = [
    spec(CHAMPION, "nothing_is_too_good_to_be_true", "No candidate has figures that look like a leak."),
    spec(CHAMPION, "champion_loads", "The champion's files are what was registered."),
]


def candidates(figures: Mapping[str, Mapping[str, float | None]], families: Sequence[str]) -> list[dg.AssetCheckResult]:
    """Say plainly which candidates do not beat the simplest forecast."""
    skills = {name: figures[name].get("skill_zero") for name in families if name not in BASELINES}
    behind = [name for name, skill in skills.items() if skill is None or skill <= 0]
    return [
        result(
            CANDIDATES,
            "candidates_beat_the_zero_forecast",
            not behind,
            severity=WARN,
            description=f"not better than zero: {', '.join(behind)}" if behind else "all candidates beat zero",
            metadata={name: skill for name, skill in skills.items() if skill is not None},
        )
    ]


def covered(platform: Platform, families: Sequence[str]) -> dg.AssetCheckResult:
    """Judge walk-forward intervals overall, by year, symbol and volatility regime."""
    settings, metadata, reasons, passed = platform.settings.predictions, {}, [], True
    for family in (name for name in families if name not in BASELINES):
        verdict = coverage_check(
            newest_version(platform.lake.read(intervals_table(family))), settings.conformal.coverage, settings.coverage
        )
        passed = passed and verdict.passed
        reasons += [f"{family}: {reason}" for reason in verdict.reasons]
        metadata[family] = dg.MetadataValue.md(markdown_table(verdict.table))
    return result(
        CANDIDATES,
        "intervals_cover_as_promised",
        passed,
        severity=WARN,
        description="; ".join(reasons) or "coverage is within tolerance everywhere",
        metadata=metadata,
    )


def champion(platform: Platform, election: Election | None) -> list[dg.AssetCheckResult]:
    """Judge the election and load the champion as scoring will."""
    alarms = election.alarms if election else {}
    text = "; ".join(f"{family}: {', '.join(found)}" for family, found in alarms.items())
    loads, why = True, "there is no champion: the naive forecast predicts"
    if platform.model_registry.champion() is not None:
        try:
            loaded = platform.model_registry.load("champion")
            why = f"{loaded.family} version {loaded.version}"
        except PipelineError as error:
            loads, why = False, str(error)
    return [
        result(
            CHAMPION,
            "nothing_is_too_good_to_be_true",
            not alarms,
            severity=ERROR,
            description=text or "no figure is beyond the limits",
            metadata={family: ", ".join(found) for family, found in alarms.items()},
        ),
        # a champion that does not load must not stop scoring: the ladder falls back and says so
        result(CHAMPION, "champion_loads", loads, severity=WARN, description=why),
    ]


def election_metadata(platform: Platform, election: Election | None) -> dict[str, Any]:
    """What the champion's page shows."""
    if election is None:
        return {"champion": "none: no candidate was trained"}
    present = election.champion
    metadata: dict[str, Any] = {
        "champion": f"{present.family} version {present.version}" if present else "none",
        "candidate": f"{election.candidate.family} version {election.candidate.version}",
    }
    if present:
        metadata["trained_through"] = present.trained_through.isoformat()
        metadata["mlflow_run"] = dg.MetadataValue.url(platform.mlflow_url + present.run_path)
    metadata |= task_result(
        champion=present.version if present else None,
        family=present.family if present else None,
        promoted=election.decision is not None and election.decision.promote,
        candidate=election.candidate.version,
        rank_ic=election.candidate.metrics.get("oos/rank_ic"),
    )
    if election.decision is None:
        return metadata | up_to_date(None)
    reasons = "\n".join(f"- {reason}" for reason in election.decision.reasons)
    return metadata | {"decision": dg.MetadataValue.md(reasons), "promoted": election.decision.promote}
