"""Factors from events, adjusted closes and vendor factors agree with each other and with the vendors' own returns."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import adjusted
from stock_pipeline.core.market.corporate_actions import (
    EVENT_SCHEMA,
    factors_from_adj_close,
    factors_from_events,
    factors_from_vendor,
)


@pytest.fixture(scope="module")
def bars(sample_dir: Path) -> pl.DataFrame:
    return pl.read_csv(sample_dir / "bars" / "*.csv", try_parse_dates=True).sort("symbol", "session")


@pytest.fixture(scope="module")
def events(sample_dir: Path) -> pl.DataFrame:
    return pl.read_csv(sample_dir / "events.csv", try_parse_dates=True)


def series(*closes: float | None, symbol: str = "A") -> pl.DataFrame:
    days = [date(2024, 1, 2 + n) for n in range(len(closes))]
    return pl.DataFrame({"symbol": symbol, "session": days, "close": closes}, schema_overrides={"close": pl.Float64})


def event(day: int, split: float = 1.0, dividend: float = 0.0, symbol: str = "A") -> tuple:
    return (symbol, date(2024, 1, day), split, dividend)


def table(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")


@pytest.mark.requirement("R3.1")
def test_by_hand() -> None:
    bars, events = series(100.0, 98.0, 50.0), table(event(3, dividend=2.0), event(4, split=2.0))
    total = factors_from_events(bars, events, "total_return")["adj_factor"].to_list()
    assert total == pytest.approx([1.0, 100 / 98, 2 * 100 / 98])
    relative = factors_from_events(bars, events, "price_relative")["adj_factor"].to_list()
    assert relative == pytest.approx([1.0, 100 / 98, 2 * 100 / 98])  # equal here: the price fell by the dividend
    apart = factors_from_events(series(100.0, 99.0), table(event(3, dividend=2.0)), "total_return")
    assert apart["adj_factor"][1] == pytest.approx(101 / 99)
    assert factors_from_events(series(100.0, 99.0), table(event(3, dividend=2.0)), "price_relative")["adj_factor"][
        1
    ] == pytest.approx(100 / 98)


def test_split_and_dividend_on_one_day() -> None:
    bars = series(100.0, 49.0)  # two for one, and 1.0 a new share
    both = table(event(3, split=2.0, dividend=1.0))
    returns = adjusted(factors_from_events(bars, both))["close"].pct_change()[1]
    assert returns == pytest.approx((49.0 + 1.0) * 2.0 / 100.0 - 1)
    relative = adjusted(factors_from_events(bars, both, "price_relative"))["close"].pct_change()[1]
    assert relative == pytest.approx(49.0 * 2.0 / (100.0 - 1.0 * 2.0) - 1)


def test_ex_date_without_a_bar_takes_effect_on_the_next_one() -> None:
    halted = series(100.0, 100.0, 100.0, 50.0).filter(pl.col("session") != date(2024, 1, 4))
    factors = factors_from_events(halted, table(event(4, split=2.0)))["adj_factor"].to_list()
    assert factors == [1.0, 1.0, 2.0]
    # a dividend before a split, both while halted: the dividend is halved onto the new shares
    together = factors_from_events(series(100.0, 48.0), table(event(2, dividend=9.0)), "total_return")
    assert together["adj_factor"].to_list() == [1.0, 1.0]  # on the first bar there is nothing to adjust
    gap = series(100.0, 0.0, 0.0, 48.0)[[0, 3]]
    chained = factors_from_events(gap, table(event(3, dividend=4.0), event(4, split=2.0)))
    assert chained["adj_factor"][1] == pytest.approx(2 * (48 + 2) / 48)


def test_bad_closes_do_not_spoil_later_factors() -> None:
    closes = (100.0, float("nan"), 100.0, None, 50.0)
    factors = factors_from_events(series(*closes), table(event(3, dividend=1.0), event(5, split=2.0)))["adj_factor"]
    assert factors.is_finite().all()
    assert factors[-1] == pytest.approx(2 * 1.01)


def test_a_session_that_occurs_twice_is_adjusted_once() -> None:
    twice = pl.concat([series(100.0, 50.0), series(100.0, 50.0)[1:]]).sort("symbol", "session")
    assert factors_from_events(twice, table(event(3, split=2.0)))["adj_factor"].to_list() == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        event(3, split=0.0),
        event(3, split=-2.0),
        event(3, split=float("inf")),
        event(3, dividend=-1.0),
        event(3, dividend=float("nan")),
    ],
)
def test_impossible_events_are_refused(wrong: tuple) -> None:
    with pytest.raises(DataError, match="of A on 2024-01-03 is not possible"):
        factors_from_events(series(100.0, 50.0), table(wrong))


def test_dividend_above_the_price_is_refused() -> None:
    with pytest.raises(DataError, match="dividend of A on 2024-01-03 is not below the price"):
        factors_from_events(series(100.0, 99.0), table(event(3, dividend=150.0)), "price_relative")


def test_unsorted_bars_are_refused() -> None:
    backwards = series(100.0, 50.0).sort("session", descending=True)
    with pytest.raises(DataError, match="not in order"):
        factors_from_events(backwards, table())
    with pytest.raises(DataError, match="missing"):
        factors_from_adj_close(series(100.0))


@pytest.mark.requirement("R3.1")
def test_adjusted_close_gives_exactly_the_real_events(bars: pl.DataFrame, events: pl.DataFrame) -> None:
    factors = factors_from_adj_close(bars)
    changed = factors.filter(pl.col("adj_factor") != pl.col("adj_factor").shift(1).over("symbol"))
    assert changed.select("symbol", "session").equals(events.select("symbol", "session"))
    theirs = pl.col("adj_close").pct_change().over("symbol")
    ours = (pl.col("close") * pl.col("adj_factor")).pct_change().over("symbol")
    assert factors.select((ours - theirs).abs().max()).item() < 1e-6


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize(
    ("symbols", "start", "method", "within"),
    [
        # Quandl's convention, and Yahoo's; 2e-6 a dividend is the rounding of the vendor's 32-bit prices
        (["IBM", "MSFT"], date(2000, 1, 1), "total_return", 1e-9),
        (["AAPL"], date(2013, 1, 2), "price_relative", 5e-6),
    ],
)
def test_dividends_reproduce_the_vendors_adjusted_close(
    bars: pl.DataFrame, events: pl.DataFrame, symbols: list[str], start: date, method: str, within: float
) -> None:
    some = bars.filter(pl.col("symbol").is_in(symbols) & (pl.col("session") >= start))
    ours = factors_from_events(some, events, method)["adj_factor"]  # type: ignore[arg-type]
    theirs = factors_from_adj_close(some)["adj_factor"]
    assert (ours / theirs - 1).abs().max() < within


def test_vendor_factors_either_way_round(bars: pl.DataFrame) -> None:
    apple = factors_from_adj_close(bars.filter(pl.col("symbol") == "AAPL"))
    backward = apple.with_columns((pl.col("adj_factor") / pl.col("adj_factor").last()).alias("factor"))
    multiplied = factors_from_vendor(backward.drop("adj_factor"))["adj_factor"]
    divided = factors_from_vendor(
        backward.with_columns((1.0 / pl.col("factor")).alias("factor")).drop("adj_factor"), convention="divide"
    )["adj_factor"]
    assert (multiplied / apple["adj_factor"] - 1).abs().max() < 1e-12
    assert (divided / apple["adj_factor"] - 1).abs().max() < 1e-12
    holed = backward.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 1).then(None).otherwise(pl.col("factor")).alias("factor")
    )
    assert factors_from_vendor(holed)["adj_factor"].is_finite().all()


def test_lean_factor_files(market_data: Path) -> None:
    """Factors of an independent platform: price factor x split factor holds up to and including its date."""
    raw = pl.read_parquet(market_data / "us_lean21_raw.parquet").rename({"date": "session"})
    files = pl.read_parquet(market_data / "us_lean_factor_files.parquet").rename({"date": "session"})
    files = files.with_columns((pl.col("price_factor") * pl.col("split_factor")).alias("factor"))
    both = sorted(set(raw["symbol"]) & set(files["symbol"]))
    bars = raw.filter(pl.col("symbol").is_in(both)).with_columns(pl.col("session").cast(pl.Date)).sort("session")
    steps = files.select("symbol", pl.col("session").cast(pl.Date), "factor").sort("session")
    joined = bars.join_asof(steps, on="session", by="symbol", strategy="forward", check_sortedness=False)
    ours = factors_from_vendor(joined.sort("symbol", "session"))
    returns = adjusted(ours).select(pl.col("close").pct_change().over("symbol").alias("r"), "symbol", "session")
    jumps = ours.filter(pl.col("adj_factor") / pl.col("adj_factor").shift(1).over("symbol") > 1.4)
    assert jumps.height > 5  # splits
    across = returns.join(jumps.select("symbol", "session"), on=["symbol", "session"])
    assert across["r"].abs().max() < 0.25
