"""The sample market is what its README says: checksums, prices of record, joins, membership, benchmark."""

from __future__ import annotations

import hashlib
import re
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.market.bars import BAR_SCHEMA, adjusted
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.source_settings import FilesSource
from stock_pipeline.core.market.universe import members
from stock_pipeline.sources import SourceData, build


@pytest.fixture(scope="module")
def data(sample_dir: Path) -> SourceData:
    settings = FilesSource(
        path=str(sample_dir / "bars"),
        prices="raw_with_adj_close",
        membership=str(sample_dir / "membership.csv"),  # type: ignore[arg-type]
        benchmark=str(sample_dir / "benchmark.csv"),  # type: ignore[arg-type]
        currency="USD",
    )
    return build(settings, calendar="XNYS").fetch(None, None)


def test_files_and_readme_agree(sample_dir: Path) -> None:
    readme = (sample_dir / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w/.]+\.csv)` \| (\d+) \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    assert {name for name, _, _ in listed} == {str(f.relative_to(sample_dir)) for f in sample_dir.rglob("*.csv")}
    for name, rows, digest in listed:
        content = (sample_dir / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
        assert len(content.splitlines()) - 1 == int(rows), name
    assert sum(f.stat().st_size for f in sample_dir.rglob("*.csv")) < 4 * 2**20


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize(
    ("symbol", "day", "close"),
    [
        ("GOOG", date(2004, 8, 19), 100.335),  # first day
        ("AAPL", date(2000, 6, 20), 101.25),
        ("AAPL", date(2000, 6, 21), 55.63),  # 2:1
        ("AAPL", date(2012, 9, 19), 702.10),
        ("AAPL", date(2014, 6, 6), 645.57),
        ("AAPL", date(2014, 6, 9), 93.70),  # 7:1
        ("AAPL", date(2020, 8, 28), 499.23),
        ("AAPL", date(2020, 8, 31), 129.04),  # 4:1
        ("GOOG", date(2014, 3, 26), 1131.97),
        ("GOOG", date(2014, 3, 27), 558.46),  # class C distributed
        ("GOOG", date(2022, 7, 15), 2255.34),
        ("GOOG", date(2022, 7, 18), 109.91),  # 20:1
        ("AMZN", date(2022, 6, 3), 2447.00),
        ("NFLX", date(2015, 7, 14), 702.60),
        ("NVDA", date(2021, 7, 19), 751.19),
        ("META", date(2012, 5, 18), 38.2318),  # first day, as FB
        ("META", date(2022, 2, 3), 237.76),
        ("IBM", date(2013, 3, 1), 202.91),
    ],
)
def test_closes_of_record(data: SourceData, symbol: str, day: date, close: float) -> None:
    row = data.bars.filter((pl.col("symbol") == symbol) & (pl.col("session") == day))
    assert row["close"].to_list() == [close]


@pytest.mark.requirement("R3.1")
def test_adjusted_returns_are_continuous_across_splits(data: SourceData, sample_dir: Path) -> None:
    splits = pl.read_csv(sample_dir / "events.csv", try_parse_dates=True).filter(pl.col("split_ratio") != 1.0)
    assert splits.height == 11
    returns = adjusted(data.bars).with_columns(pl.col("close").pct_change().over("symbol").alias("r"))
    raw = data.bars.with_columns(pl.col("close").pct_change().over("symbol").alias("raw"))
    at = splits.join(returns.select("symbol", "session", "r"), on=["symbol", "session"])
    at = at.join(raw.select("symbol", "session", "raw"), on=["symbol", "session"])
    assert at.height == 11
    assert at["r"].abs().max() < 0.1
    gap = ((1 + pl.col("r")) / ((1 + pl.col("raw")) * pl.col("split_ratio")) - 1).abs()
    assert at.select(gap.max()).item() < 1e-5


def test_volume_is_on_the_same_basis_on_both_sides_of_the_join(data: SourceData) -> None:
    before = data.bars.filter(pl.col("session").is_between(date(2012, 12, 1), date(2012, 12, 31)))
    after = data.bars.filter(pl.col("session").is_between(date(2013, 1, 1), date(2013, 1, 31)))
    for symbol in ("AAPL", "GOOG", "META"):
        means = [f.filter(pl.col("symbol") == symbol)["volume"].mean() for f in (before, after)]
        assert 0.5 < means[1] / means[0] < 2.2, symbol  # type: ignore[operator]
    first = data.bars.filter((pl.col("symbol") == "GOOG") & (pl.col("session") == date(2004, 8, 19)))
    assert first["volume"].to_list() == [22_351_900]


def test_no_session_is_missing_between_a_members_first_and_last(data: SourceData) -> None:
    assert data.membership is not None
    assert members(data.membership, data.bars).height == data.bars.height
    nyse = SessionCalendar("XNYS")
    for (symbol,), rows in data.bars.group_by("symbol"):
        days = rows["session"].sort().to_list()
        assert nyse.sessions(days[0], days[-1]) == days, symbol
    ended = data.membership.filter(pl.col("end").is_not_null())
    assert ended.rows() == [(s, date(2000, 3, 1), date(2013, 3, 1)) for s in ("IBM", "MSFT")]


def test_benchmark_ends_where_the_readme_says(data: SourceData) -> None:
    assert data.benchmark is not None
    days = data.benchmark["session"].to_list()
    assert (days[0], days[-1]) == (date(2000, 3, 1), date(2022, 12, 28))
    assert SessionCalendar("XNYS").sessions(days[0], days[-1]) == days
    crash = data.benchmark.filter(pl.col("session") == date(2008, 10, 13))
    assert crash["close"][0] == pytest.approx(1003.35, abs=0.01)


def test_shape_and_known_at(data: SourceData) -> None:
    assert data.bars.schema == BAR_SCHEMA
    assert data.bars.height == 28_225
    assert data.problems == ()
    early = data.bars.filter(pl.col("session") == date(2022, 11, 25))  # the day after Thanksgiving
    assert set(early["known_at"].dt.strftime("%H:%M")) == {"18:00"}
    first = data.bars.group_by("symbol", maintain_order=True).agg(pl.col("adj_factor").first())
    assert first["adj_factor"].unique().to_list() == [1.0]
