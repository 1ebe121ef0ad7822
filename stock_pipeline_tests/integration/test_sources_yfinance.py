"""The yfinance source through the real library and real HTTP, against answers in Yahoo's own format."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.corporate_actions import factors_from_events
from stock_pipeline.core.market.source_settings import YFinanceSource
from stock_pipeline.sources import build
from stock_pipeline.sources.network import Caller
from stock_pipeline_tests.fixtures.vendor_server import Vendor, serve

pytest.importorskip("yfinance", reason="needs the optional extra yfinance")

EVENING = datetime(2023, 9, 21, 22, 0, tzinfo=UTC)
BUSY: tuple[int, str, str] = (429, "text/plain", "Too Many Requests")
BROKEN: tuple[int, str, str] = (502, "text/html", "<html>bad gateway</html>")


@pytest.fixture
def vendor(sample_dir: Path, tmp_path: Path) -> Iterator[Vendor]:
    import yfinance

    yfinance.set_tz_cache_location(str(tmp_path))
    with serve() as vendor:
        for symbol in ("AAPL", "NVDA"):
            bars = pl.read_csv(sample_dir / "bars" / f"{symbol}.csv", try_parse_dates=True)
            vendor.bars[symbol] = bars.filter(pl.col("session") >= date(2014, 1, 2))
            events = pl.read_csv(sample_dir / "events.csv", try_parse_dates=True)
            vendor.events[symbol] = events.filter(
                (pl.col("symbol") == symbol) & (pl.col("session") >= date(2014, 1, 2))
            )
        yield vendor


def source(vendor: Vendor, *, clock: datetime = EVENING, waits: list[float] | None = None, **settings: Any) -> Any:
    from stock_pipeline.sources.yfinance import YFinance

    chosen = YFinanceSource(
        **{"symbols": ("AAPL",), "start": date(2014, 1, 2), "base_url": vendor.url, "retries": 2, **settings}
    )
    waits = [] if waits is None else waits
    caller = Caller(per_minute=6000, retries=chosen.retries, wait_seconds=1, sleep=waits.append)
    return YFinance(chosen, SessionCalendar("XNYS"), clock=lambda: clock, caller=caller)


@pytest.mark.requirement("R3.1")
def test_raw_prices_and_factors_come_back_from_split_adjusted_ones(vendor: Vendor) -> None:
    data = source(vendor, symbols=("AAPL", "NVDA")).fetch(None, None)
    assert data.bars.schema == BAR_SCHEMA
    assert data.problems == ()
    truth = pl.concat([vendor.bars["AAPL"], vendor.bars["NVDA"]])
    assert data.bars.select("symbol", "session").equals(truth.select("symbol", "session"))
    for column in ("open", "high", "low", "close"):
        gap = (data.bars[column] / truth[column] - 1).abs()
        assert gap.max() < 2e-7, column
        assert (gap == 0).mean() > 0.995, column
    assert (data.bars["volume"] / truth["volume"] - 1).abs().max() < 1e-6
    events = pl.concat(vendor.events.values())
    expected = factors_from_events(truth, events)["adj_factor"]
    assert (data.bars["adj_factor"] / expected - 1).abs().max() < 1e-6
    assert data.events.select("symbol", "session").equals(events.select("symbol", "session"))
    assert data.bars["currency"].unique().to_list() == ["USD"]
    assert data.bars["known_at"].unique().to_list() == [EVENING]
    assert len(vendor.requests) == 2


@pytest.mark.requirement("R3.1")
def test_incremental_fetch_looks_back_and_shows_revisions(vendor: Vendor) -> None:
    first = source(vendor).fetch(None, date(2023, 9, 20)).bars
    changed = vendor.bars["AAPL"]
    corrected = pl.when(pl.col("session") == date(2023, 9, 12)).then(176.0).otherwise(pl.col("close"))
    vendor.bars["AAPL"] = changed.with_columns(corrected.alias("close"))
    later = datetime(2023, 9, 22, 2, 0, tzinfo=UTC)
    second = source(vendor, clock=later, lookback_days=10).fetch(date(2023, 9, 21), None).bars
    assert second["session"].to_list() == SessionCalendar("XNYS").sessions(date(2023, 9, 11), date(2023, 9, 21))
    both = second.join(first, on=["symbol", "session"], suffix="_before")
    content = [c for c in BAR_SCHEMA if c not in ("symbol", "session", "known_at", "amount")]
    revised = both.filter(pl.any_horizontal(pl.col(c) != pl.col(f"{c}_before") for c in content))
    assert revised["session"].to_list() == [date(2023, 9, 12)]
    assert revised["known_at"][0] == later > revised["known_at_before"][0]


def test_a_new_split_rewrites_nothing(vendor: Vendor) -> None:
    """Yahoo divides all history by it; raw prices and factors before it stay the same bits."""
    before = source(vendor).fetch(None, None).bars
    row = {"symbol": "AAPL", "session": date(2023, 9, 22), "split_ratio": 3.0, "dividend": 0.0}
    vendor.events["AAPL"] = pl.concat([vendor.events["AAPL"], pl.DataFrame([row], schema=vendor.events["AAPL"].schema)])
    last = vendor.bars["AAPL"].tail(1).with_columns(pl.lit(date(2023, 9, 22)).alias("session"), pl.col("close") / 3)
    last = last.with_columns(pl.col(c) / 3 for c in ("open", "high", "low"))
    vendor.bars["AAPL"] = pl.concat([vendor.bars["AAPL"], last])
    after = source(vendor, clock=datetime(2023, 9, 22, 22, 0, tzinfo=UTC)).fetch(None, None).bars
    assert after.height == before.height + 1
    same = after.head(before.height)
    for column in ("open", "high", "low", "close", "adj_factor"):
        assert (same[column] == before[column]).mean() > 0.99, column
        assert (same[column] / before[column] - 1).abs().max() < 2e-6, column
    assert after["adj_factor"][-1] == pytest.approx(3 * before["adj_factor"][-1], rel=1e-6)


def test_a_session_still_open_is_left_out(vendor: Vendor) -> None:
    trading = datetime(2023, 9, 21, 15, 0, tzinfo=UTC)
    assert source(vendor, clock=trading).fetch(None, None).bars["session"].max() == date(2023, 9, 20)


@pytest.mark.requirement("R1.5")
def test_what_may_pass_is_retried_with_growing_waits(vendor: Vendor) -> None:
    waits: list[float] = []
    # the library itself asks a second time after each status of 400 or more
    vendor.failures = [BUSY, BUSY, BROKEN, BROKEN]
    data = source(vendor, waits=waits).fetch(None, None)
    assert data.bars.height == vendor.bars["AAPL"].height
    assert [w for w in waits if w >= 1] == [1.0, 2.0]


def test_failures_that_last_say_so(vendor: Vendor) -> None:
    vendor.failures = [BUSY] * 20
    with pytest.raises(DataError, match=r"nothing for any of 1 symbols.*rate limit"):
        source(vendor, waits=[]).fetch(None, None)


def test_an_unknown_symbol_is_reported_and_does_not_stop_the_others(vendor: Vendor) -> None:
    data = source(vendor, symbols=("AAPL", "XXXX")).fetch(date(2023, 9, 1), None)
    assert data.bars["symbol"].unique().to_list() == ["AAPL"]
    assert len(data.problems) == 1
    assert "XXXX" in data.problems[0]
    with pytest.raises(DataError, match="XXXX"):
        source(vendor, symbols=("XXXX",)).fetch(None, None)


def test_benchmark(vendor: Vendor) -> None:
    data = source(vendor, benchmark="NVDA").fetch(date(2023, 9, 1), None)
    assert data.benchmark is not None
    assert data.benchmark["session"].max() == date(2023, 9, 21)
    assert source(vendor, benchmark="^NONE").fetch(date(2023, 9, 1), None).problems[0].startswith("yfinance benchmark")


def test_membership_file_beside_a_network_vendor(vendor: Vendor, sample_dir: Path) -> None:
    data = source(vendor, membership=str(sample_dir / "membership.csv")).fetch(date(2023, 9, 1), None)
    assert data.membership is not None
    assert data.membership.height == 8


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stock-pipeline\[yfinance\]'"):
        build(YFinanceSource(symbols=("AAPL",)))
