"""Strategies: parameters, decisions on real prices, and the check that they do not look ahead."""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core.backtesting import strategies
from stock_pipeline.core.backtesting.data import MarketData
from stock_pipeline.core.backtesting.lookahead import validate_no_lookahead
from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.backtesting.strategies.protocol import Strategy, as_targets
from stock_pipeline.core.errors import ConfigurationError, DataError, LookAheadError


@pytest.fixture(scope="module")
def closes() -> pl.DataFrame:
    """Twenty real stocks, closes only, 2005-2012; one of them starts late."""
    datasets = pytest.importorskip("skfolio.datasets")
    wide = datasets.load_sp500_dataset()["2005":"2012"].reset_index()
    frame = pl.from_pandas(wide).unpivot(index=wide.columns[0], variable_name="symbol", value_name="close")
    frame = frame.rename({wide.columns[0]: "session"}).with_columns(pl.col("session").cast(pl.Date))
    return frame.filter((pl.col("symbol") != "XOM") | (pl.col("session") > date(2008, 1, 1))).sort("symbol", "session")


@pytest.fixture(scope="module")
def predictions(closes) -> pl.DataFrame:
    """Something to rank: a seeded mix of past return and noise."""
    noise = np.random.default_rng(3).normal(0, 0.01, closes.height)
    return closes.with_columns(prediction=pl.col("close").pct_change(20).over("symbol").fill_null(0) + noise).select(
        "symbol", "session", "prediction"
    )


PARAMETERS = {
    "buy_and_hold": {"rebalance": "quarterly"},
    "sma_cross": {"fast": 10, "slow": 50, "side": "long_short"},
    "rsi_mean_reversion": {"side": "long_short"},
    "bollinger": {"side": "long_short"},
    "momentum_rank": {"top": 4, "bottom": 4},
    "model_rank": {"top": 4, "bottom": 4},
}


@pytest.mark.requirement("R3.2")
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_strategy_trades_and_does_not_look_ahead(name, closes, predictions):
    assert strategies.names() == sorted(PARAMETERS)
    data = MarketData.from_bars(closes, predictions)
    strategy = strategies.build(name, PARAMETERS[name])
    targets = strategy.targets(data)
    assert targets.height > 10
    assert targets.equals(targets.sort("session", "symbol"))
    gross = targets.filter(pl.col("session") == targets["session"][-1])["weight"].abs().sum()
    assert gross <= 1 + 1e-9
    validate_no_lookahead(strategy, data, cuts=6, seed=1, targets=targets)


@pytest.mark.requirement("R3.2", "R3.1")
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_strategy_through_to_a_reconciled_result(name, closes, predictions):
    settings = BacktestSettings(start=date(2006, 6, 1), lookahead_cuts=1)
    result = run_backtest(name, PARAMETERS[name], closes, predictions=predictions, settings=settings)
    assert result.reconciliation.agrees
    assert result.equity["session"][0] == date(2006, 6, 1)
    assert result.fills.height > 0
    # Closes only: a decision of one session is filled at the close of the next.
    fill = result.fills.filter(pl.col("reason") == "target").row(-1, named=True)
    bar = closes.filter((pl.col("symbol") == fill["symbol"]) & (pl.col("session") == fill["session"])).row(
        0, named=True
    )
    slip = 1.0005 if fill["side"] == "buy" else 0.9995
    assert fill["price"] == pytest.approx(bar["close"] * slip)


class Peeking(Strategy):
    """Buys what rises tomorrow."""

    name: ClassVar[str] = "peeking"
    description: ClassVar[str] = "Cheats."

    def targets(self, data: MarketData) -> pl.DataFrame:
        tomorrow = pl.col("close").shift(-1).over("symbol")
        frame = data.adjusted.with_columns(weight=pl.when(tomorrow > pl.col("close")).then(0.05).otherwise(0.0))
        return as_targets(frame.filter(pl.col("session") < data.sessions[-1]))


class Normalising(Strategy):
    """Scales by the deviation over all history: a leak that never opens a trade by itself."""

    name: ClassVar[str] = "normalising"
    description: ClassVar[str] = "Cheats a little."

    def targets(self, data: MarketData) -> pl.DataFrame:
        change = pl.col("close").pct_change().over("symbol")
        scale = 0.01 / change.std().over("symbol")
        frame = data.adjusted.with_columns(weight=0.01 * scale.clip(0, 1))
        return as_targets(frame.filter(pl.col("session").dt.day() == 3))


class Survivors(Strategy):
    """Holds only the symbols that are still there at the end."""

    name: ClassVar[str] = "survivors"
    description: ClassVar[str] = "Cheats by names."

    def targets(self, data: MarketData) -> pl.DataFrame:
        share = 1.0 / len(data.symbols)
        return as_targets(data.adjusted.filter(pl.col("session").dt.day() == 3).with_columns(weight=pl.lit(share)))


@pytest.mark.requirement("R3.2")
@pytest.mark.parametrize("kind", [Peeking, Normalising, Survivors])
def test_cheating_strategies_are_caught(kind, closes):
    with pytest.raises(LookAheadError, match=r"on 20\d\d-\d\d-\d\d changes with data after 20"):
        validate_no_lookahead(kind(), MarketData.from_bars(closes), cuts=6)


@pytest.mark.requirement("R3.2")
def test_a_cheating_user_strategy_does_not_get_a_result(closes):
    with pytest.raises(LookAheadError):
        run_backtest(f"{__name__}:Peeking", None, closes)


@pytest.mark.requirement("R3.2")
@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sma_crss", {}, "bollinger, buy_and_hold, model_rank"),
        ("no.such.module:Thing", {}, "cannot be imported"),
        ("math:pi", {}, "not a strategy"),
        ("sma_cross", {"fast": 0}, "fast of sma_cross.*0.*greater than or equal to 1"),
        ("sma_cross", {"fast": 50, "slow": 20}, "fast .50. must be smaller than slow .20."),
        ("sma_cross", {"fats": 5}, "one of the parameters fast, slow, side, weight"),
        ("bollinger", {"width": float("nan")}, "width"),
        ("rsi_mean_reversion", {"lower": 60}, "lower .60.0. < leave"),
        ("momentum_rank", {"rebalance": "hourly"}, "'daily', 'weekly'"),
        ("model_rank", {}, "needs out-of-sample predictions"),
    ],
)
def test_wrong_names_and_parameters_say_what_is_allowed(name, parameters, message, closes):
    with pytest.raises(ConfigurationError, match=message):
        run_backtest(name, parameters, closes)


@pytest.mark.requirement("R3.2", "R4.4")
def test_predictions_must_have_been_out_of_sample(closes, predictions):
    trained = predictions.with_columns(trained_through=pl.col("session").dt.offset_by("-5d"))
    settings = BacktestSettings(lookahead_cuts=0)
    run_backtest("model_rank", {"top": 3}, closes, predictions=trained, settings=settings, second_ledger=False)
    leaked = trained.with_columns(
        trained_through=pl.when(pl.col("session") == date(2009, 3, 2)).then("session").otherwise("trained_through")
    )
    with pytest.raises(LookAheadError, match="on 2009-03-02 is by a model trained through 2009-03-02"):
        run_backtest("model_rank", {"top": 3}, closes, predictions=leaked, settings=settings)
    with pytest.raises(DataError, match="two predictions"):
        run_backtest("model_rank", {}, closes, predictions=pl.concat([predictions, predictions.head(1)]))


def test_model_rank_holds_the_best(closes, predictions):
    targets = strategies.build("model_rank", {"top": 3}).targets(MarketData.from_bars(closes, predictions))
    day = targets["session"].unique().sort()[40]
    best = predictions.filter(pl.col("session") == day).sort("prediction", descending=True).head(3)["symbol"].to_list()
    held = targets.filter((pl.col("session") == day) & (pl.col("weight") > 0))
    assert sorted(held["symbol"]) == sorted(best)
    assert held["weight"].to_list() == pytest.approx([1 / 3] * 3)


def test_rsi_against_the_definition(closes):
    """States follow from the index computed by hand."""
    one = closes.filter(pl.col("symbol") == "GE")
    targets = strategies.build("rsi_mean_reversion", {"weight": 1.0}).targets(MarketData.from_bars(one))
    close = one["close"].to_numpy()
    change = np.diff(close)
    state, expected = 0, []
    for t in range(14, len(close)):
        window = change[t - 14 : t]
        up, down = window[window > 0].sum(), -window[window < 0].sum()
        rsi = 100 * up / (up + down)
        new = 0 if rsi >= 50 else 1 if rsi < 30 else state
        if new != state:
            expected.append((one["session"][t], float(new)))
        state = new
    assert targets.select("session", "weight").rows() == expected
