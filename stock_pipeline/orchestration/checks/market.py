"""Checks of the market's bars."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.core.market.bars import KEYS, PRICES
from stock_pipeline.orchestration.checks import quality
from stock_pipeline.orchestration.checks.base import WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table
from stock_pipeline.orchestration.reports import QualityReport
from stock_pipeline.orchestration.resources import Platform

RAW_BARS, VALIDATED_BARS = "market/raw_bars", "market/validated_bars"

RAW = [
    spec(RAW_BARS, "source_delivers_rows", "The vendor delivered at least one row for the range asked for."),
]
NOT_A_SESSION = ["future_session", "known_before_session", "off_calendar"]
REPORT = [
    spec(
        "market/quality_report",
        "great_expectations_are_met",
        "The expectations on the newest year of validated bars hold; see the Data Docs.",
    ),
]
VALIDATED = [
    spec(
        VALIDATED_BARS,
        "every_row_has_one_fate",
        "Each current raw row is exactly once among the validated or the quarantined bars.",
        blocking=True,
    ),
    spec(VALIDATED_BARS, "prices_are_possible", "Prices are finite, positive and ordered low to high.", blocking=True),
    spec(
        VALIDATED_BARS,
        "quarantine_is_rare",
        "The newest session lost no more rows to quarantine than the configured share.",
        blocking=True,
    ),
    spec(VALIDATED_BARS, "bars_have_no_gaps", "No symbol lacks a session between its first and last bar."),
    quality.SPEC,
]


def raw(bars: pl.DataFrame) -> list[dg.AssetCheckResult]:
    """Judge what the vendor delivered."""
    return [result(RAW_BARS, "source_delivers_rows", bars.height > 0, severity=WARN, metadata={"rows": bars.height})]


def validated(platform: Platform) -> list[dg.AssetCheckResult]:
    """Judge the stored validated table as a whole, whatever this run wrote."""
    lake = platform.lake
    bars = lake.read(VALIDATED_BARS)
    quarantined = lake.read("market/quarantined_bars")
    raw_rows = platform.raw_bars.current()
    sessions = pl.concat([bars["session"], quarantined["session"]])
    since: Any = sessions.min()
    until: Any = sessions.max()
    expected = raw_rows.filter(pl.col("session").is_between(since, until)) if since else raw_rows.clear()
    fates = pl.concat([bars.select(KEYS), quarantined.select(KEYS)])
    difference = expected.height - fates.height
    twice = bars.height - bars.select(KEYS).n_unique()
    impossible = bars.filter(
        ~pl.all_horizontal(pl.col(p).is_null() | (pl.col(p).is_finite() & (pl.col(p) > 0)) for p in PRICES)
        | (pl.col("high") < pl.col("low"))
        | pl.col("close").is_null()
    )
    # a row dated in the future, or on no session, is no reason to hold back a night
    real = quarantined.filter(pl.col("rules").list.set_intersection(pl.lit(NOT_A_SESSION)).list.len() == 0)
    newest: Any = pl.concat([bars["session"], real["session"]]).max()
    lost = real.filter(pl.col("session") == newest).height if newest else 0
    # of all that should have been there: one bad early row is not the whole night
    recent = bars["session"].unique().sort().tail(20)
    active = bars.filter(pl.col("session").is_in(recent.implode()))["symbol"].n_unique()
    of = max(active, lost + (bars.filter(pl.col("session") == newest).height if newest else 0))
    share, allowed = lost / of if of else 0.0, platform.settings.gates.max_quarantined_share
    findings = lake.read("market/quality_findings")
    gaps = findings.filter(pl.col("rule") == "missing_sessions")
    return [
        result(
            VALIDATED_BARS,
            "every_row_has_one_fate",
            difference == 0 and twice == 0,
            metadata={"raw": expected.height, "validated": bars.height, "quarantined": quarantined.height},
        ),
        result(
            VALIDATED_BARS,
            "prices_are_possible",
            impossible.is_empty(),
            metadata={"rows": impossible.height, "examples": dg.MetadataValue.md(markdown_table(impossible.head(5)))},
        ),
        result(
            VALIDATED_BARS,
            "quarantine_is_rare",
            share <= allowed,
            description=f"{lost} of {of} rows of {newest} are in quarantine; {allowed:.0%} are allowed",
            metadata={"share": share, "allowed": allowed, "quarantined": lost},
        ),
        result(
            VALIDATED_BARS,
            "bars_have_no_gaps",
            gaps.is_empty(),
            severity=WARN,
            metadata={"missing": gaps.height, "newest": dg.MetadataValue.md(markdown_table(gaps.tail(5)))},
        ),
        quality.evaluate(platform),
    ]


def expectations(written: QualityReport) -> dg.AssetCheckResult:
    """Say what Great Expectations found."""
    return result(
        "market/quality_report",
        "great_expectations_are_met",
        written.passed,
        description="; ".join(written.failures) or "every expectation holds",
        metadata={"data_docs": dg.MetadataValue.path(str(written.data_docs))},
    )
