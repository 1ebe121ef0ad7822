"""The akshare source through the real library and real HTTP, against answers in the formats of Eastmoney and Sina."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.core.market.source_settings import AkShareSource
from stock_pipeline.sources import build
from stock_pipeline.sources.network import Caller
from stock_pipeline_tests.fixtures.vendor_server import Vendor, serve

pytest.importorskip("akshare", reason="needs the optional extra akshare")

EVENING = datetime(2023, 9, 21, 12, 0, tzinfo=UTC)
FACTORS = [("1900-01-01", "1.0000"), ("2022-06-08", "2.5000"), ("2023-09-11", "2.6000")]


@pytest.fixture
def vendor(sample_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """Real bars stand in for those of 600000; the vendor's hosts are answered by the local server."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def redirected(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        parts = urlsplit(request.url)
        if parts.hostname and parts.hostname.endswith("eastmoney.com"):
            local = urlsplit(vendor.url)
            request.url = urlunsplit((local.scheme, local.netloc, parts.path, parts.query, ""))
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(HTTPAdapter, "send", redirected)
    shanghai = SessionCalendar("XSHG")
    with serve() as vendor:
        bars = pl.read_csv(sample_dir / "bars" / "NVDA.csv", try_parse_dates=True)
        known = bars.filter(
            pl.col("session").is_in(shanghai.sessions(date(2022, 1, 1), date(2023, 9, 21)))
            & (pl.col("session") >= date(2022, 1, 4))
        )
        vendor.bars["600000"] = known.with_columns((pl.col("volume") / 100).round() * 100)
        vendor.factors["sh600000"] = FACTORS
        yield vendor


def source(vendor: Vendor, *, clock: datetime = EVENING, waits: list[float] | None = None, **settings: Any) -> Any:
    from stock_pipeline.sources.akshare import AkShare

    waits = [] if waits is None else waits
    chosen = AkShareSource(
        **{
            "symbols": ("600000",),
            "start": date(2022, 1, 4),
            "factors_url": vendor.url + "/realstock/company/{symbol}/hfq.js",
            "retries": 2,
            **settings,
        }
    )
    caller = Caller(per_minute=6000, retries=chosen.retries, wait_seconds=1, sleep=waits.append)
    return AkShare(chosen, SessionCalendar("XSHG"), clock=lambda: clock, caller=caller)


@pytest.mark.requirement("R3.1")
def test_bars_are_raw_in_shares_with_multiplicative_factors(vendor: Vendor) -> None:
    data = source(vendor).fetch(None, None)
    truth = vendor.bars["600000"]
    assert data.bars.schema == BAR_SCHEMA
    assert data.bars["session"].equals(truth["session"])
    for column in ("open", "high", "low", "close", "volume"):
        assert (data.bars[column] - truth[column]).abs().max() < 0.0051, column
    assert data.bars["amount"].is_not_null().all()
    by_day = dict(zip(data.bars["session"], data.bars["adj_factor"], strict=True))
    assert by_day[date(2022, 6, 7)] == 1.0
    assert by_day[date(2022, 6, 8)] == 2.5
    assert by_day[date(2023, 9, 12)] == 2.6
    assert data.bars["currency"].unique().to_list() == ["CNY"]
    assert data.bars["known_at"].unique().to_list() == [EVENING]


@pytest.mark.requirement("R3.1")
def test_incremental_fetch_asks_only_for_the_window_and_keeps_the_base(vendor: Vendor) -> None:
    whole = source(vendor).fetch(None, None).bars
    vendor.requests.clear()
    part = source(vendor, lookback_days=12).fetch(date(2023, 9, 21), None).bars
    assert part.equals(whole.filter(pl.col("session") >= date(2023, 9, 9)))
    assert any("beg=20230909" in r and "end=20230921" in r for r in vendor.requests)
    changed = pl.when(pl.col("session") == date(2023, 9, 12)).then(450.0).otherwise(pl.col("close"))
    vendor.bars["600000"] = vendor.bars["600000"].with_columns(changed.alias("close"))
    again = source(vendor, lookback_days=12).fetch(date(2023, 9, 21), None).bars
    assert again.filter(again["close"] != part["close"])["session"].to_list() == [date(2023, 9, 12)]


def test_a_session_still_open_is_left_out(vendor: Vendor) -> None:
    trading = datetime(2023, 9, 21, 3, 0, tzinfo=UTC)
    assert source(vendor, clock=trading).fetch(None, None).bars["session"].max() == date(2023, 9, 20)


@pytest.mark.requirement("R1.5")
def test_what_may_pass_is_retried(vendor: Vendor) -> None:
    waits: list[float] = []
    vendor.failures = [(503, "text/html", "busy"), (429, "text/html", "slow down")]
    assert source(vendor, waits=waits).fetch(None, None).bars.height == vendor.bars["600000"].height
    assert [w for w in waits if w >= 1] == [1.0, 2.0]
    vendor.failures = [(503, "text/html", "busy")] * 10
    with pytest.raises(DataError, match=r"nothing for any of 1 symbols.*503"):
        source(vendor).fetch(None, None)


def test_unknown_symbols_and_damaged_factors_are_reported(vendor: Vendor) -> None:
    vendor.factors["sz000001"] = FACTORS
    data = source(vendor, symbols=("600000", "000001", "300001")).fetch(date(2023, 9, 1), None)
    assert data.bars["symbol"].unique().to_list() == ["600000"]
    assert [p.split(":")[0] for p in data.problems] == ["akshare 000001", "akshare 300001"]
    assert "no rows" in data.problems[0]
    assert "factors cannot be read" in data.problems[1]


def test_the_factor_script_is_never_run(vendor: Vendor, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    body = f"var sh600000hfq=__import__('pathlib').Path({str(trap)!r}).write_text('x')\n"
    vendor.failures = [(200, "application/javascript", body)]
    with pytest.raises(DataError, match="factors cannot be read"):
        source(vendor).fetch(None, None)
    assert not trap.exists()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "akshare", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stock-pipeline\[akshare\]'"):
        build(AkShareSource(symbols=("600000",)))
