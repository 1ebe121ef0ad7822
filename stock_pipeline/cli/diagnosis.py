"""What `doctor` looks at: each finding says what was looked at and what was found."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stock_pipeline.cli.console import span
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import PipelineError


@dataclass(frozen=True)
class Finding:
    """One line: good, wrong (``False``), or a note (``None``)."""

    good: bool | None
    what: str
    found: str


def diagnose(config: Path | None) -> list[Finding]:
    """Look at everything that a run needs, without changing anything."""
    findings = [Finding(sys.version_info >= (3, 11), "Python", sys.version.split()[0])]
    try:
        settings = load_settings(config)
    except PipelineError as error:
        return [*findings, Finding(False, "configuration", str(error))]
    findings.append(Finding(True, "configuration", f"{settings.config_file} (version {settings.version})"))
    for what, look in (
        ("calendar", _calendar),
        ("source", _source),
        ("features", _features),
        ("lake", _lake),
        ("models", _models),
        ("alerts", _alerts),
    ):
        try:
            findings += look(settings)
        except PipelineError as error:
            findings.append(Finding(False, what, str(error)))
    return findings


def _calendar(settings: Settings) -> list[Finding]:
    from stock_pipeline.core.market.calendar import SessionCalendar

    calendar = SessionCalendar(settings.market.calendar)
    warning = calendar.warn_before_end(datetime.now(UTC).date())
    return [Finding(None if warning else True, "calendar", warning or f"{calendar.name} until {calendar.last}")]


def _source(settings: Settings) -> list[Finding]:
    if settings.source.kind != "files":
        return [Finding(None, "source", f"{settings.source.kind}: not asked, it would use the network")]
    from stock_pipeline.sources import build

    data = build(settings.source, calendar=settings.market.calendar).fetch(None, None)
    bars = data.bars
    text = f"{bars.height:,} rows, {bars['symbol'].n_unique()} symbols, {span(bars)}"
    found = [Finding(bars.height > 0, "source", text)]
    return found + [Finding(None, "source", problem) for problem in data.problems]


def _features(settings: Settings) -> list[Finding]:
    from stock_pipeline.orchestration.inputs import chosen_feature_sets

    sets = chosen_feature_sets(settings)
    return [Finding(True, "features", ", ".join(f"{name}: {len(s.features)}" for name, s in sets.items()))]


def _lake(settings: Settings) -> list[Finding]:
    from stock_pipeline.orchestration.resources import Platform

    lake = Platform(settings).lake
    last = lake.last_session("market/validated_bars")
    if last is None:
        return [Finding(None, "lake", f"{settings.storage.lake_uri}: no bars yet; run `stock-pipeline run`")]
    return [Finding(True, "lake", f"{len(lake.tables())} tables, newest bars of {last}")]


def _models(settings: Settings) -> list[Finding]:
    from stock_pipeline.orchestration.resources import Platform

    if not (settings.home / "mlflow" / "mlflow.db").exists() and settings.storage.mlflow is None:
        return [Finding(None, "models", "no model store yet")]
    registry = Platform(settings).model_registry
    champion = registry.champion()
    if champion is None:
        return [Finding(None, "models", "no champion: the naive forecast predicts")]
    registry.load("champion")
    return [Finding(True, "models", f"champion {champion.family} version {champion.version}, files verified")]


def _alerts(settings: Settings) -> list[Finding]:
    from stock_pipeline.observability.alerts import build_sinks

    sinks = build_sinks(settings.alerts.targets)
    if len(sinks) == 1:
        return [Finding(None, "alerts", "go to the log only; set alerts.targets to be told")]
    return [Finding(True, "alerts", ", ".join(sink.name for sink in sinks))]
