"""Identities of adjusted prices, on arbitrary prices and corporate actions."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.core.market.bars import adjusted
from stock_pipeline.core.market.corporate_actions import EVENT_SCHEMA, factors_from_adj_close, factors_from_events

DAY = date(2020, 1, 1)
price = st.floats(1.0, 5000.0)
ratio = st.sampled_from([0.1, 0.5, 2.0, 3.0, 1.5, 7.0, 20.0, 1.0027455])


@st.composite
def histories(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars of two symbols, and events on some of their sessions (dividends well below the price)."""
    rows, events = [], []
    for symbol in ("A", "B"):
        closes = draw(st.lists(price, min_size=2, max_size=12))
        rows += [(symbol, DAY + timedelta(n), c) for n, c in enumerate(closes)]
        for n in draw(st.sets(st.integers(1, len(closes) - 1), max_size=4)):
            split = draw(st.one_of(st.just(1.0), ratio))
            share = draw(st.floats(0.0, 0.3))
            events.append((symbol, DAY + timedelta(n), split, share * closes[n - 1] / split))
    bars = pl.DataFrame(rows, schema=["symbol", "session", "close"], orient="row")
    return bars, pl.DataFrame(events, schema=EVENT_SCHEMA, orient="row")


@pytest.mark.requirement("R3.1")
@given(histories(), st.sampled_from(["total_return", "price_relative"]))
def test_adjusted_return_is_the_holders_return(history: tuple[pl.DataFrame, pl.DataFrame], method: str) -> None:
    bars, events = history
    factored = factors_from_events(bars, events, method)  # type: ignore[arg-type]
    frame = adjusted(factored).with_columns(bars["close"].alias("raw"))
    frame = frame.join(events, on=["symbol", "session"], how="left", maintain_order="left").with_columns(
        pl.col("split_ratio").fill_null(1.0), pl.col("dividend").fill_null(0.0)
    )
    before = pl.col("raw").shift(1).over("symbol")
    expected = (
        (pl.col("raw") + pl.col("dividend")) * pl.col("split_ratio") / before
        if method == "total_return"
        else pl.col("raw") * pl.col("split_ratio") / (before - pl.col("dividend") * pl.col("split_ratio"))
    )
    ours = pl.col("close") / pl.col("close").shift(1).over("symbol")
    gap = frame.select((ours / expected - 1).abs().max()).item()
    assert gap < 1e-12
    first = factored.group_by("symbol").agg(pl.col("adj_factor").first())
    assert first["adj_factor"].to_list() == [1.0, 1.0]


@pytest.mark.requirement("R3.1")
@given(histories())
def test_no_event_no_change_and_the_future_never_rewrites_the_past(
    history: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    bars, events = history
    whole = factors_from_events(bars, events)
    quiet = whole.join(events, on=["symbol", "session"], how="anti", maintain_order="left")
    step = whole.with_columns((pl.col("adj_factor") == pl.col("adj_factor").shift(1).over("symbol")).alias("same"))
    same = step.join(quiet.select("symbol", "session"), on=["symbol", "session"], maintain_order="left")["same"]
    assert same.drop_nulls().all()
    for cut in sorted(set(bars["session"])):
        known = factors_from_events(bars.filter(pl.col("session") <= cut), events.filter(pl.col("session") <= cut))
        assert known.equals(whole.filter(pl.col("session") <= cut))


@given(histories())
def test_round_trip_through_an_adjusted_close(history: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    """A vendor's adjusted close, based on the last day, gives the same factors back."""
    bars, events = history
    whole = factors_from_events(bars, events)
    last = pl.col("adj_factor").last().over("symbol")
    vendor = whole.with_columns((pl.col("close") * pl.col("adj_factor") / last).alias("adj_close"))
    back = factors_from_adj_close(vendor.drop("adj_factor"), tolerance=1e-12)
    assert (back["adj_factor"] / whole["adj_factor"] - 1).abs().max() < 1e-9
