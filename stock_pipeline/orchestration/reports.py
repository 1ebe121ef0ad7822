"""Writes the reports that people open: data quality and Great Expectations' Data Docs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.core.quality import QualityResult
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.code_version import code_version
from stock_pipeline.storage.watermarks import parameters_hash


@dataclass(frozen=True)
class QualityReport:
    """Where the report is, what Great Expectations found, and whether anything was new."""

    report: Path
    data_docs: Path
    passed: bool
    failures: list[str]
    new: bool


def write_quality(platform: Platform) -> QualityReport:
    """Write the quality report over all sessions, and Data Docs of the newest year of validated bars."""
    from stock_pipeline.core.reporting.quality import quality_report
    from stock_pipeline.storage.data_docs import build_data_docs

    lake, folder = platform.lake, platform.reports
    names = ("market/validated_bars", "market/quarantined_bars", "market/quality_findings", "market/quality_scores")
    stamp = folder / "quality.stamp"
    present = parameters_hash(
        lake.versions(names), code_version("core/quality", "core/reporting", "storage/data_docs.py")
    )
    report, docs = folder / "quality.html", folder / "data_docs"
    if stamp.is_file() and report.is_file() and (docs / "index.html").is_file():
        known, verdict, *failures = stamp.read_text(encoding="utf-8").splitlines()
        if known == present:
            return QualityReport(report, docs / "index.html", verdict == "passed", failures, new=False)
    bars = lake.read("market/validated_bars")
    tables = QualityResult(
        validated=bars,
        quarantined=lake.read("market/quarantined_bars"),
        findings=lake.read("market/quality_findings"),
        scores=lake.read("market/quality_scores"),
    )
    market = platform.settings.market
    page = quality_report(tables, rules=platform.settings.quality, title=f"Data quality of {market.name}")
    scratch = report.with_suffix(".html.new")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(report)
    newest: Any = bars["session"].dt.year().max()
    found = build_data_docs(
        bars.filter(pl.col("session").dt.year() == newest), docs, title=f"Validated bars of {market.name}, {newest}"
    )
    verdict = "passed" if found.success else "failed"
    stamp.write_text("\n".join([present, verdict, *found.failed]), encoding="utf-8")
    return QualityReport(report, docs / "index.html", found.success, list(found.failed), new=True)


def links(written: QualityReport) -> dict[str, Any]:
    """Metadata with the paths of the reports."""
    metadata: dict[str, Any] = {
        "report": dg.MetadataValue.path(str(written.report)),
        "data_docs": dg.MetadataValue.path(str(written.data_docs)),
    }
    return metadata if written.new else metadata | {"up_to_date": True}
