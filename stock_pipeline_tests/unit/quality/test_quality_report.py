"""The report shows what the validation found, escapes what it shows, and asks nothing of the network."""

from __future__ import annotations

import re

import polars as pl
import pytest

from stock_pipeline.core.quality import QualityResult, QualityRules, validate_bars
from stock_pipeline.core.reporting.quality import quality_report
from stock_pipeline_tests.unit.quality.quality_bars import corrupt, sample_bars, sessions_of

pytestmark = pytest.mark.requirement("R7.4", "R7.5")
EVIL = "<img src=x onerror=alert(1)></script>"


def visible(html: str) -> str:
    """The page without the library that draws."""
    return re.sub(r"<script>/\*\*.*?</script>", "", html, flags=re.DOTALL)


def report(raw: pl.DataFrame, **settings: object) -> tuple[QualityResult, str]:
    rules = QualityRules.model_validate(settings)
    result = validate_bars(raw, sessions=sessions_of(sample_bars()), rules=rules)
    return result, quality_report(result, rules=rules, lead="Sample market")


def test_reasons_originals_and_remedies_are_shown() -> None:
    raw = corrupt(sample_bars(), {100: "half", 300: "swapped", 700: "NaN open"})
    _, html = report(raw, user_rules=[{"name": "dear", "when": "close > 450", "message": "Too dear"}])
    text = visible(html)
    for expected in (
        "split_like_jump",
        "a usual split ratio",
        "Add the missing split or share dividend",
        "high_low_swapped",
        "median_ratio",
        "NaN",
        "Too dear",
        "Sample market",
        "Score over time",
        "Score by symbol and year",
    ):
        assert expected in text
    assert html.count("Plotly.newPlot(") >= 4
    assert html.count("plotly.js v") <= 2  # the library is inside, once


def test_texts_of_the_data_are_escaped() -> None:
    raw = corrupt(sample_bars(), {100: "half", 300: "swapped"}).with_columns(
        symbol=pl.when(pl.col("symbol") == "AAPL").then(pl.lit(EVIL)).otherwise(pl.col("symbol"))
    )
    result, html = report(raw)
    assert EVIL in result.quarantined["symbol"].to_list()
    assert EVIL not in html
    assert "<img" not in visible(html).lower()
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_nothing_is_fetched_and_an_empty_result_has_a_page_too() -> None:
    _, html = report(sample_bars())
    assert not re.search(r"(src|href)\s*=\s*[\"']https?:", visible(html))
    _, empty = report(sample_bars().head(0))
    assert "<p>0 rows.</p>" in empty
    assert len(empty) < 20_000
