from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core import features
from stock_pipeline.core.errors import ConfigurationError, LookAheadError
from stock_pipeline.core.features import Feature, FeatureSet, Panel

pytestmark = pytest.mark.requirement("R1.1", "V1")


@pytest.fixture
def bars() -> pl.DataFrame:
    rng = np.random.default_rng(11)
    sessions = pl.date_range(date(2020, 1, 1), date(2020, 5, 29), eager=True)
    return pl.concat(
        pl.DataFrame(
            {
                "symbol": [symbol] * len(sessions),
                "session": sessions,
                "close": 20 * np.exp(np.cumsum(rng.normal(0, 0.02, len(sessions)))),
                "adj_factor": [1.0] * len(sessions),
            }
        )
        for symbol in ("A", "B", "C")
    )


def _set(function: object, lookback: int = 5, **more: object) -> FeatureSet:
    made = Feature("suspect", function, ("close",), lookback, "A suspect", "A test", origin=__name__, **more)  # type: ignore[arg-type]
    return FeatureSet("suspects", (made,))


def _tomorrow(p: Panel) -> np.ndarray:
    out = np.full(len(p.close), np.nan)
    out[:-1] = p.close[1:] / p.close[:-1] - 1
    return out


def _running_total(p: Panel) -> np.ndarray:
    return p.close / np.cumsum(p.close)


def _polars_mean(p: Panel) -> np.ndarray:
    """What is left of Polars' running sum beside the exact mean: rounding that depends on where the frame starts."""
    return 1e12 * (pl.Series(p.close).rolling_mean(6).to_numpy() - p.mean(p.close, 6))


def test_honest_features_pass(bars: pl.DataFrame) -> None:
    fs = features.feature_set(["return_5", "rsi_6", "sma_ratio_20", "rank_return_5", "zscore_return_5", "MA20"])
    assert features.audit(bars, fs).is_empty()
    features.refuse_look_ahead(bars, fs)


def test_the_future_is_noticed(bars: pl.DataFrame) -> None:
    found = features.audit(bars, _set(_tomorrow, 0))
    assert {"look_ahead", "other_symbols"} <= set(found["check"])
    assert found.filter(pl.col("check") == "look_ahead")["session"].item() < bars["session"].max()
    with pytest.raises(LookAheadError, match=r"'suspect' changes when the sessions after .* are removed"):
        features.refuse_look_ahead(bars, _set(_tomorrow, 0))


def test_a_look_back_that_is_too_short_is_noticed(bars: pl.DataFrame) -> None:
    found = features.audit(bars, _set(lambda p: p.growth(p.close, 6), 5))
    assert found["check"].to_list() == ["lookback"]
    assert "only 5 rows" in found["message"].item()


def test_running_state_and_shared_rounding_are_noticed(bars: pl.DataFrame) -> None:
    assert "lookback" in features.audit(bars, _set(_running_total))["check"].to_list()
    assert "other_symbols" in features.audit(bars, _set(_running_total))["check"].to_list()
    assert features.audit(bars, _set(_polars_mean)).height > 0


def test_a_wrong_shape_an_exception_or_an_undeclared_column_is_a_clear_error(bars: pl.DataFrame) -> None:
    with pytest.raises(ConfigurationError, match=r"'suspect' .* returned the wrong shape"):
        features.compute(bars, _set(lambda p: p.close[:-1]))
    with pytest.raises(ConfigurationError, match=r"'suspect' .* failed with KeyError"):
        features.compute(bars, _set(lambda p: {}["x"]))
    with pytest.raises(ConfigurationError, match="does not declare among its inputs: 'volume'"):
        features.compute(bars, _set(lambda p: p.volume))


def test_features_cannot_disturb_each_other(bars: pl.DataFrame) -> None:
    """The panel's arrays are shared: they cannot be changed, and a name for an intermediate is the module's own."""

    def spoil(p: Panel) -> np.ndarray:
        p.growth(p.close, 5)[:] = 0.0
        return p.close

    with pytest.raises(ConfigurationError, match=r"'suspect' .* failed with ValueError.*read-only"):
        features.compute(bars, _set(spoil))
    of_booleans = _set(lambda p: p.mean(p.growth(p.close) > 0, 5))
    assert features.compute(bars, of_booleans)["suspect"].drop_nulls().is_between(0, 1).all()
    same_key = _set(lambda p: p.once("gain", lambda: p.close * 0.0), 0)
    both = FeatureSet("both", (*same_key.features, features.get("rsi_6")))
    alone = features.compute(bars, features.feature_set(["rsi_6"]))
    assert features.compute(bars, both)["rsi_6"].equals(alone["rsi_6"])


def test_every_feature_alone_equals_itself_in_company(market: pl.DataFrame) -> None:
    """Also: it declares all its inputs."""
    some = market.filter(pl.col("symbol").is_in(["AAPL", "IBM", "META"]), pl.col("session") < date(2017, 6, 1))
    together = features.compute(some, features.feature_set(list(features.sets())))
    for name in features.names():
        fs = features.feature_set([name])
        alone = features.compute(some.select("symbol", "session", "adj_factor", *fs.inputs), fs, threads=1)
        assert alone[name].equals(together[name]), name
