"""Data Docs of validated bars: real Great Expectations, good and bad tables, offline pages, replaced in one step."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.quality import QualityRules, validate_bars
from stock_pipeline.storage.data_docs import build_data_docs
from stock_pipeline_tests.unit.quality.quality_bars import corrupt, sample_bars, sessions_of

pytestmark = pytest.mark.requirement("R7.4", "P7")


@pytest.fixture(scope="module")
def validated() -> pl.DataFrame:
    raw = corrupt(sample_bars(), {100: "null close", 300: "swapped", 700: "NaN open"})
    return validate_bars(raw, sessions=sessions_of(sample_bars()), rules=QualityRules()).validated


def pages(site: Path) -> dict[str, str]:
    return {page.relative_to(site).parts[0]: page.read_text("utf-8") for page in site.rglob("*.html")}


def test_validated_bars_meet_every_expectation_and_the_site_is_readable_offline(
    validated: pl.DataFrame, tmp_path: Path
) -> None:
    docs = build_data_docs(validated, tmp_path / "docs", title="Bars & more")
    assert docs.success, docs.failed
    assert docs.expectations > 25
    assert docs.path == tmp_path / "docs" / "index.html"
    found = pages(tmp_path / "docs")
    assert set(found) == {"index.html", "validations", "expectations"}
    for text in found.values():
        assert not re.search(r"https?://", re.sub(r"<a\b[^>]*>", "", text))
        assert "<script" not in text
    front = found["index.html"]
    assert "Bars &amp; more" in front
    for link in re.findall(r'href="([^"#:]+\.html)"', front):
        assert (tmp_path / "docs" / link).is_file()
    assert "greater than or equal to" in found["validations"]


def test_a_broken_table_fails_by_name_and_the_site_is_replaced_whole(validated: pl.DataFrame, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    build_data_docs(validated, tmp_path / "docs")
    broken = validated.with_columns(
        high=pl.col("low") - 1,
        close=pl.when(pl.int_range(pl.len()) == 5).then(-1.0).otherwise(pl.col("close")),
        status=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(evil)).otherwise(pl.col("status")),
    )
    docs = build_data_docs(broken, tmp_path / "docs")
    assert not docs.success
    assert any("greater_than_b(high, low)" in text for text in docs.failed)
    assert any("be_between(close): 1 rows" in text for text in docs.failed)
    found = pages(tmp_path / "docs")
    assert "failed" in found["index.html"]
    assert evil not in "".join(found.values())
    # One site and the link to it: nothing half-built and nothing old is left.
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_in_the_way_is_replaced_and_an_empty_table_refused(validated: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "old.html").write_text("old")
    build_data_docs(validated.head(50), tmp_path / "docs")
    assert not (tmp_path / "docs" / "old.html").exists()
    with pytest.raises(DataError, match="no validated bars"):
        build_data_docs(validated.head(0), tmp_path / "docs")
    assert (tmp_path / "docs" / "index.html").is_file()
