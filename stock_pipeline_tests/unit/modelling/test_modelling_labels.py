from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.modelling.labels import LABEL_SCHEMA, forward_returns, past_returns
from stock_pipeline_tests.unit.modelling import modelling_data

DAYS = [date(2024, 1, 1) + timedelta(i) for i in range(6)]


def frame(symbol: str, days: list[date], **columns: list) -> pl.DataFrame:
    return pl.DataFrame({"symbol": [symbol] * len(days), "session": days, **columns})


@pytest.mark.requirement("R4.1")
def test_the_decision_is_traded_at_the_next_open_on_adjusted_prices():
    bars = frame(
        "A",
        DAYS,
        open=[10.0, 11.0, 12.0, 6.5, 7.0, 7.5],
        close=[10.5, 11.5, 12.5, 6.6, 7.1, 7.6],
        # a split of 2 for 1 before the fourth session
        adj_factor=[1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
    )
    result = forward_returns(bars, 2)
    assert result.schema == LABEL_SCHEMA
    expected = [13.0 / 11 - 1, 14.0 / 12 - 1, 15.0 / 13 - 1, None, None, None]
    assert result["label"].to_list() == pytest.approx(expected)
    assert result["label_session"].to_list() == [*DAYS[3:6], None, None, None]


def test_without_opens_it_is_close_to_close():
    result = forward_returns(frame("A", DAYS, close=[10.0, 11, 12, 13, 14, 15]), 1)
    assert result["label"].to_list() == pytest.approx([0.1, 1 / 11, 1 / 12, 1 / 13, 1 / 14, None])
    assert result["label_session"].to_list() == [*DAYS[1:], None]


def test_a_halted_symbol_completes_its_label_late_and_symbols_do_not_mix():
    late = [*DAYS[:2], date(2024, 2, 1), date(2024, 2, 2)]
    bars = pl.concat([frame("B", late, close=[1.0, 2, 3, 4]), frame("A", DAYS, close=[1.0, 2, 3, 4, 5, 6])])
    result = forward_returns(bars, 2)
    assert result.filter(pl.col("symbol") == "B")["label_session"].to_list() == [*late[2:], None, None]
    assert result.filter(pl.col("symbol") == "A")["label_session"].null_count() == 2


@pytest.mark.parametrize("bad", [0.0, -3.0, float("nan"), float("inf"), None])
def test_a_price_that_cannot_be_gives_no_label(bad):
    result = forward_returns(frame("A", DAYS, close=[10.0, bad, 12, 13, 14, 15]), 1)
    assert result["label"].to_list()[:2] == [None, None]
    assert result["label"].to_list()[2] == pytest.approx(13 / 12 - 1)
    assert result["label_session"][0] is None


def test_bad_input_is_named():
    bars = frame("A", DAYS, close=[1.0] * 6)
    with pytest.raises(ConfigurationError, match="horizon"):
        forward_returns(bars, 0)
    with pytest.raises(DataError, match="close"):
        forward_returns(bars.drop("close"), 1)
    with pytest.raises(DataError, match="repeat"):
        forward_returns(pl.concat([bars, bars]), 1)


def test_labels_of_real_prices_equal_an_independent_computation():
    bars = modelling_data.bars(300, 4)
    result = forward_returns(bars, 5)
    wide = bars.pivot(on="symbol", index="session", values="close").sort("session")
    for symbol in bars["symbol"].unique():
        close = wide[symbol].to_numpy()
        mine = result.filter(pl.col("symbol") == symbol)["label"].to_numpy()
        np.testing.assert_allclose(mine[:-5], close[5:] / close[:-5] - 1, rtol=1e-12)
        assert np.isnan(mine[-5:]).all()


def test_past_returns_look_back_only():
    bars = modelling_data.bars(300, 2)
    full = past_returns(bars, 250)
    cut = bars["session"].unique().sort()[270]
    before = past_returns(bars.filter(pl.col("session") <= cut), 250)
    assert full.filter(pl.col("session") <= cut).equals(before)
    assert full["past_return_250"].null_count() == 2 * 250
