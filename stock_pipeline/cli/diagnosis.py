"""What `doctor` looks at: each finding says what was looked at and what was found."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from stock_pipeline.cli.diagnosis_servers import look_at_databases, look_at_redis, look_at_workers
from stock_pipeline.cli.diagnosis_source import look_at_prices
from stock_pipeline.cli.findings import Finding
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.home import check_home
from stock_pipeline.config.layers import ENV_PREFIX
from stock_pipeline.core.errors import PipelineError

ENOUGH_GB = 2.0
"""Free space below which a note is due."""


def diagnose(config: Path | None) -> list[Finding]:
    """Look at everything that a run needs, without changing anything."""
    findings = [Finding(sys.version_info >= (3, 11), "Python", sys.version.split()[0])]
    try:
        settings = load_settings(config)
    except PipelineError as error:
        return [*findings, Finding(False, "configuration", str(error))]
    findings.append(Finding(True, "configuration", f"{settings.config_file} (version {settings.version})"))
    for what, look in (
        ("environment", _overrides),
        ("home", _home),
        ("calendar", _calendar),
        ("source", look_at_prices),
        ("lake", _lake),
        ("models", _models),
        ("alerts", _alerts),
        ("databases", look_at_databases),
        ("Redis", look_at_redis),
        ("workers", look_at_workers),
    ):
        try:
            findings += look(settings)
        except (PipelineError, OSError) as error:
            findings.append(Finding(False, what, str(error)))
    return findings


def _calendar(settings: Settings) -> list[Finding]:
    from stock_pipeline.core.market.calendar import SessionCalendar

    calendar = SessionCalendar(settings.market.calendar)
    warning = calendar.warn_before_end(datetime.now(UTC).date())
    return [Finding(None if warning else True, "calendar", warning or f"{calendar.name} until {calendar.last}")]


def _home(settings: Settings) -> list[Finding]:
    check_home(settings)
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return [Finding(False, "home", f"{place} cannot be written to; change the key home")]
    free = shutil.disk_usage(place).free / 1e9
    return [Finding(True if free > ENOUGH_GB else None, "home", f"{settings.home}, {free:.1f} GB free")]


def _overrides(settings: Settings) -> list[Finding]:
    names = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) or name == "STOCK_PIPELINE_HOME")
    return [Finding(None, "environment", f"set by variables: {', '.join(names)}")] if names else []


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
