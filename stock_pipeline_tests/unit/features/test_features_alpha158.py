"""Alpha158 against plain Python formulas, written from Qlib's expressions and not from the implementation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import polars as pl
import pytest

from stock_pipeline.core import features
from stock_pipeline.core.market.bars import adjusted

pytestmark = pytest.mark.requirement("R1.1")

Bars = dict[str, list[float]]


def _least_squares(y: list[float]) -> tuple[float, float, float]:
    """Slope, R squared and last residual of y on 1..n."""
    n = len(y)
    x = list(range(1, n + 1))
    line = statistics.linear_regression(x, y)
    return line.slope, statistics.correlation(x, y) ** 2, y[-1] - (line.intercept + line.slope * n)


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    k = math.floor(place)
    upper = ordered[min(k + 1, len(ordered) - 1)]
    return ordered[k] + (place - k) * (upper - ordered[k])


def _last(b: Bars, column: str, t: int, d: int) -> list[float]:
    return b[column][t - d + 1 : t + 1]


def _pairs(b: Bars, column: str, t: int, d: int) -> list[tuple[float, float]]:
    """(value, value before) of the last d rows."""
    return [(b[column][i], b[column][i - 1]) for i in range(t - d + 1, t + 1)]


def _sum_ratio(b: Bars, column: str, t: int, d: int, sign: float) -> float:
    moves = [x - y for x, y in _pairs(b, column, t, d)]
    return sum(max(sign * m, 0.0) for m in moves) / (sum(abs(m) for m in moves) + 1e-12)


def _wvma(b: Bars, t: int, d: int) -> float:
    moved = [abs(b["close"][i] / b["close"][i - 1] - 1) * b["volume"][i] for i in range(t - d + 1, t + 1)]
    return statistics.stdev(moved) / (statistics.fmean(moved) + 1e-12)


def _cord(b: Bars, t: int, d: int) -> float:
    prices = [x / y for x, y in _pairs(b, "close", t, d)]
    volumes = [math.log(x / y + 1) for x, y in _pairs(b, "volume", t, d)]
    return statistics.correlation(prices, volumes)


FORMULAS: dict[str, Callable[[Bars, int, int], float]] = {
    "ROC": lambda b, t, d: b["close"][t - d] / b["close"][t],
    "MA": lambda b, t, d: statistics.fmean(_last(b, "close", t, d)) / b["close"][t],
    "STD": lambda b, t, d: statistics.stdev(_last(b, "close", t, d)) / b["close"][t],
    "BETA": lambda b, t, d: _least_squares(_last(b, "close", t, d))[0] / b["close"][t],
    "RSQR": lambda b, t, d: _least_squares(_last(b, "close", t, d))[1],
    "RESI": lambda b, t, d: _least_squares(_last(b, "close", t, d))[2] / b["close"][t],
    "MAX": lambda b, t, d: max(_last(b, "high", t, d)) / b["close"][t],
    "MIN": lambda b, t, d: min(_last(b, "low", t, d)) / b["close"][t],
    "QTLU": lambda b, t, d: _quantile(_last(b, "close", t, d), 0.8) / b["close"][t],
    "QTLD": lambda b, t, d: _quantile(_last(b, "close", t, d), 0.2) / b["close"][t],
    "RANK": lambda b, t, d: (
        (sum((v < b["close"][t]) + (v <= b["close"][t]) for v in _last(b, "close", t, d)) + 1) / 2 / d
    ),
    "RSV": lambda b, t, d: (
        (b["close"][t] - min(_last(b, "low", t, d)))
        / (max(_last(b, "high", t, d)) - min(_last(b, "low", t, d)) + 1e-12)
    ),
    "IMAX": lambda b, t, d: (_last(b, "high", t, d).index(max(_last(b, "high", t, d))) + 1) / d,
    "IMIN": lambda b, t, d: (_last(b, "low", t, d).index(min(_last(b, "low", t, d))) + 1) / d,
    "IMXD": lambda b, t, d: FORMULAS["IMAX"](b, t, d) - FORMULAS["IMIN"](b, t, d),
    "CORR": lambda b, t, d: statistics.correlation(
        _last(b, "close", t, d), [math.log(v + 1) for v in _last(b, "volume", t, d)]
    ),
    "CORD": _cord,
    "CNTP": lambda b, t, d: sum(x > y for x, y in _pairs(b, "close", t, d)) / d,
    "CNTN": lambda b, t, d: sum(x < y for x, y in _pairs(b, "close", t, d)) / d,
    "CNTD": lambda b, t, d: FORMULAS["CNTP"](b, t, d) - FORMULAS["CNTN"](b, t, d),
    "SUMP": lambda b, t, d: _sum_ratio(b, "close", t, d, 1.0),
    "SUMN": lambda b, t, d: _sum_ratio(b, "close", t, d, -1.0),
    "SUMD": lambda b, t, d: FORMULAS["SUMP"](b, t, d) - FORMULAS["SUMN"](b, t, d),
    "VMA": lambda b, t, d: statistics.fmean(_last(b, "volume", t, d)) / (b["volume"][t] + 1e-12),
    "VSTD": lambda b, t, d: statistics.stdev(_last(b, "volume", t, d)) / (b["volume"][t] + 1e-12),
    "WVMA": _wvma,
    "VSUMP": lambda b, t, d: _sum_ratio(b, "volume", t, d, 1.0),
    "VSUMN": lambda b, t, d: _sum_ratio(b, "volume", t, d, -1.0),
    "VSUMD": lambda b, t, d: FORMULAS["VSUMP"](b, t, d) - FORMULAS["VSUMN"](b, t, d),
}

BAR_FORMULAS: dict[str, Callable[[float, float, float, float], float]] = {
    "KMID": lambda o, h, b, c: (c - o) / o,
    "KLEN": lambda o, h, b, c: (h - b) / o,
    "KMID2": lambda o, h, b, c: (c - o) / (h - b + 1e-12),
    "KUP": lambda o, h, b, c: (h - max(o, c)) / o,
    "KUP2": lambda o, h, b, c: (h - max(o, c)) / (h - b + 1e-12),
    "KLOW": lambda o, h, b, c: (min(o, c) - b) / o,
    "KLOW2": lambda o, h, b, c: (min(o, c) - b) / (h - b + 1e-12),
    "KSFT": lambda o, h, b, c: (2 * c - h - b) / o,
    "KSFT2": lambda o, h, b, c: (2 * c - h - b) / (h - b + 1e-12),
    "OPEN0": lambda o, h, b, c: o / c,
    "HIGH0": lambda o, h, b, c: h / c,
    "LOW0": lambda o, h, b, c: b / c,
}


@pytest.fixture(scope="module")
def one(market: pl.DataFrame) -> pl.DataFrame:
    return market.filter(pl.col("symbol") == "AAPL")[:400]


@pytest.fixture(scope="module")
def values(one: pl.DataFrame) -> pl.DataFrame:
    return features.compute(one, features.feature_set(["alpha158"]))


def test_the_names_are_qlibs() -> None:
    windows = [f"{name}{d}" for name in FORMULAS for d in (5, 10, 20, 30, 60)]
    assert set(features.sets()["alpha158"]) == {*windows, *BAR_FORMULAS, "VWAP0"}


@pytest.mark.parametrize("name", FORMULAS)
def test_factors_of_a_window(one: pl.DataFrame, values: pl.DataFrame, name: str) -> None:
    bars = adjusted(one).to_dict(as_series=False)
    for d in (5, 10, 20, 30, 60):
        for t in range(60, one.height, 23):
            expected = FORMULAS[name](bars, t, d)
            assert values[f"{name}{d}"][t] == pytest.approx(expected, rel=2e-6, abs=2e-7), (d, t)


def test_factors_of_a_bar(one: pl.DataFrame, values: pl.DataFrame) -> None:
    bars = adjusted(one)
    for name, formula in BAR_FORMULAS.items():
        for t in range(0, one.height, 11):
            o, h, low, c = (bars[x][t] for x in ("open", "high", "low", "close"))
            assert values[name][t] == pytest.approx(formula(o, h, low, c), rel=1e-6, abs=1e-7), name
    assert values["VWAP0"].to_list() == pytest.approx([1.0] * one.height), "the fixture's amount is close times volume"
