"""Real panels: what must be found is found, and real crashes pass."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.quality import QualityResult, QualityRules, validate_bars
from stock_pipeline_tests.unit.quality.quality_bars import sample_bars, sessions_of

pytestmark = pytest.mark.requirement("R7.2")
ALL = ("AAPL", "AMZN", "GOOG", "IBM", "META", "MSFT", "NFLX", "NVDA")


def judged(bars: pl.DataFrame) -> QualityResult:
    return validate_bars(bars, sessions=sessions_of(bars), rules=QualityRules())


def panel(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet").rename({"date": "session"})


def test_earnings_moves_of_the_sample_pass() -> None:
    bars = sample_bars(ALL, date(2000, 3, 1), date(2023, 12, 31))
    result = judged(bars)
    assert result.quarantined.is_empty()
    moves = result.findings.filter(pl.col("rule") == "extreme_return")
    for symbol, session in [("META", date(2022, 2, 3)), ("META", date(2018, 7, 26)), ("NFLX", date(2022, 4, 20))]:
        found = moves.filter((pl.col("symbol") == symbol) & (pl.col("session") == session))
        assert found.height == 1
        assert found["value"][0] < -0.18


def test_splits_without_factors_are_found() -> None:
    bars = sample_bars(ALL, date(2000, 3, 1), date(2023, 12, 31)).with_columns(adj_factor=1.0)
    jumps = judged(bars).findings.filter(pl.col("rule") == "split_like_jump")
    found = set(jumps.select("symbol", "session").iter_rows())
    for split in [
        ("AAPL", date(2005, 2, 28)),
        ("AAPL", date(2014, 6, 9)),
        ("AAPL", date(2020, 8, 31)),
        ("AMZN", date(2022, 6, 6)),
        ("GOOG", date(2022, 7, 18)),
        ("MSFT", date(2003, 2, 18)),
        ("NFLX", date(2015, 7, 15)),
        ("NVDA", date(2021, 7, 20)),
    ]:
        assert split in found


def test_all_mixed_scale_rows_of_a_known_bad_panel_are_found(market_data: Path) -> None:
    bars = panel(market_data, "us_kdd17")
    bars = bars.with_columns(adj_factor=pl.col("adj_close") / pl.col("close"))
    broken = bars.filter(
        (pl.col("high") < pl.max_horizontal("open", "close")) | (pl.col("low") > pl.min_horizontal("open", "close"))
    ).select("symbol", "session")
    assert broken.height == 11_180
    result = judged(bars)
    rules = ["mixed_scale", "ohlc_order", "ohlc_rounding", "misplaced_field", "close_outside_range"]
    found = result.findings.filter(pl.col("rule").is_in(rules)).select("symbol", "session").unique()
    assert broken.join(found, on=["symbol", "session"], how="anti").is_empty()
    mixed = result.findings.filter((pl.col("rule") == "mixed_scale") & (pl.col("severity") == "quarantine"))
    assert mixed.height >= 11_170
    assert found.join(broken, on=["symbol", "session"], how="anti").is_empty()


def test_wrong_prints_of_raw_us_prices_are_repaired_or_quarantined(market_data: Path) -> None:
    result = judged(panel(market_data, "us_lean21_raw"))
    repaired = set(result.validated.filter(pl.col("status") == "repaired").select("symbol", "session").iter_rows())
    assert {("AAPL", date(2009, 9, 21)), ("GOOG", date(2007, 12, 18)), ("IWM", date(2008, 9, 19))} <= repaired
    reverted = result.findings.filter(pl.col("rule") == "spike_reverted")
    assert ("GOOG", date(2008, 10, 1)) in set(reverted.select("symbol", "session").iter_rows())


def test_suspensions_of_chinese_shares_are_told_from_prices(market_data: Path) -> None:
    bars = panel(market_data, "cn_61_raw")
    result = judged(bars)
    rules = result.quarantined.explode("rules")
    halted = rules.filter(pl.col("rules") == "suspension")
    assert halted.height > 5_600
    assert (halted["volume"] == 0).all()
    assert result.validated.filter(pl.col("volume") == 0).height < 100


def test_closes_alone_are_judged_more_gently() -> None:
    package = find_spec("skfolio")  # found, not imported: that would take seconds
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / "sp500_dataset.csv.gz"
    wide = pl.read_csv(file, try_parse_dates=True)
    session = wide.columns[0]
    bars = wide.unpivot(index=session, variable_name="symbol", value_name="close").rename({session: "session"})
    result = judged(bars)
    rules = result.quarantined.explode("rules")
    jumps = rules.filter(pl.col("rules").str.ends_with("jump")).select("symbol", "session")
    # A fall by half without any volume beside it looks like a split, until the next close confirms it.
    assert set(jumps.iter_rows()) == {("AAPL", date(2000, 9, 29)), ("RRC", date(1990, 4, 10))}
    assert set(rules.filter(pl.col("rules") == "stale_run")["symbol"]) == {"RRC"}
    assert set(rules["rules"]) == {"stale_run", "split_like_jump"}


@pytest.mark.slow
def test_false_alarms_on_a_market_with_real_crashes_are_rare(market_data: Path) -> None:
    result = judged(panel(market_data, "in_nse250"))
    rows = result.quarantined.explode("rules").filter(pl.col("rules") != "suspension")
    assert rows.height <= 10  # of 974,765
    assert result.summary()["rows"] == 974_765
