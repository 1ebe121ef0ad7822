"""Technical features against TA-Lib and published results; statistical ones against NumPy, SciPy and pandas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from stock_pipeline.core import features

pytestmark = pytest.mark.requirement("R1.1")

Arrays = dict[str, np.ndarray]


def _compute(bars: pl.DataFrame, names: list[str]) -> dict[str, np.ndarray]:
    frame = features.compute(bars, features.feature_set(names))
    return {n: frame[n].cast(pl.Float64).to_numpy() for n in names}


def _compare(ours: np.ndarray, reference: np.ndarray, tolerance: float, from_row: int) -> None:
    """Largest difference after ``from_row`` at most ``tolerance`` times the reference's standard deviation."""
    ours, reference = ours[from_row:], np.asarray(reference, dtype=float)[from_row:]
    both = np.isfinite(ours) & np.isfinite(reference)
    assert both.mean() > 0.98
    worst = np.abs(ours - reference)[both].max() / reference[both].std()
    assert worst <= tolerance, worst


# --- TA-Lib -----------------------------------------------------------------------------------------------------------

RECURSIVE = 1e-2
"""Finite windows drop 1e-4 of the weight, and TA-Lib's seeding has died out by row 1,000: what remains is at most one
hundredth of the feature's standard deviation (where a crash leaves the window), typically a tenth of that."""
EXACT = 2e-5

TALIB: dict[str, tuple[Callable[[Arrays, object], np.ndarray], float]] = {
    "sma_ratio_20": (lambda b, t: b["close"] / t.SMA(b["close"], 20) - 1, EXACT),
    "sma_ratio_200": (lambda b, t: b["close"] / t.SMA(b["close"], 200) - 1, EXACT),
    "ema_ratio_26": (lambda b, t: b["close"] / t.EMA(b["close"], 26) - 1, RECURSIVE),
    "ema_ratio_50": (lambda b, t: b["close"] / t.EMA(b["close"], 50) - 1, RECURSIVE),
    "wma_ratio_20": (lambda b, t: b["close"] / t.WMA(b["close"], 20) - 1, EXACT),
    "dema_ratio_20": (lambda b, t: b["close"] / t.DEMA(b["close"], 20) - 1, RECURSIVE),
    "tema_ratio_15": (lambda b, t: b["close"] / t.TEMA(b["close"], 15) - 1, RECURSIVE),
    "hma_ratio_20": (
        lambda b, t: b["close"] / t.WMA(2 * t.WMA(b["close"], 10) - t.WMA(b["close"], 20), 4) - 1,
        EXACT,
    ),
    "vwma_ratio_20": (
        lambda b, t: b["close"] / (t.SUM(b["close"] * b["volume"], 20) / t.SUM(b["volume"], 20)) - 1,
        EXACT,
    ),
    "ulcer_index_14": (
        lambda b, t: np.sqrt(t.SMA((100 * (b["close"] / t.MAX(b["close"], 14) - 1)) ** 2, 14)),
        EXACT,
    ),
    "macd_ratio": (lambda b, t: t.MACD(b["close"])[0] / b["close"], RECURSIVE),
    "macd_signal_ratio": (lambda b, t: t.MACD(b["close"])[1] / b["close"], RECURSIVE),
    "macd_histogram_ratio": (lambda b, t: t.MACD(b["close"])[2] / b["close"], RECURSIVE),
    "ppo_12_26": (lambda b, t: t.PPO(b["close"], 12, 26, 1) / 100, RECURSIVE),
    "trix_15": (lambda b, t: t.TRIX(b["close"], 15) / 100, RECURSIVE),
    "plus_di_14": (lambda b, t: t.PLUS_DI(b["high"], b["low"], b["close"], 14), RECURSIVE),
    "minus_di_14": (lambda b, t: t.MINUS_DI(b["high"], b["low"], b["close"], 14), RECURSIVE),
    "adx_14": (lambda b, t: t.ADX(b["high"], b["low"], b["close"], 14), RECURSIVE),
    "aroon_up_25": (lambda b, t: t.AROON(b["high"], b["low"], 25)[1], EXACT),
    "aroon_down_25": (lambda b, t: t.AROON(b["high"], b["low"], 25)[0], EXACT),
    "aroon_oscillator_25": (lambda b, t: t.AROONOSC(b["high"], b["low"], 25), EXACT),
    "rsi_6": (lambda b, t: t.RSI(b["close"], 6), RECURSIVE),
    "rsi_14": (lambda b, t: t.RSI(b["close"], 14), RECURSIVE),
    "rsi_21": (lambda b, t: t.RSI(b["close"], 21), RECURSIVE),
    "stochastic_k_14": (lambda b, t: t.STOCHF(b["high"], b["low"], b["close"], 14, 3)[0], EXACT),
    "stochastic_d_14": (lambda b, t: t.STOCHF(b["high"], b["low"], b["close"], 14, 3)[1], EXACT),
    "stochastic_slow_d_14": (lambda b, t: t.STOCH(b["high"], b["low"], b["close"], 14, 3, 0, 3, 0)[1], EXACT),
    "stochastic_rsi_14": (lambda b, t: t.STOCHRSI(b["close"], 14, 14, 3)[0], 2.5 * RECURSIVE),
    "williams_r_14": (lambda b, t: t.WILLR(b["high"], b["low"], b["close"], 14), EXACT),
    "cci_20": (lambda b, t: t.CCI(b["high"], b["low"], b["close"], 20), EXACT),
    "roc_20": (lambda b, t: t.ROC(b["close"], 20), EXACT),
    "ultimate_oscillator": (lambda b, t: t.ULTOSC(b["high"], b["low"], b["close"], 7, 14, 28), EXACT),
    "true_range_ratio": (lambda b, t: t.TRANGE(b["high"], b["low"], b["close"]) / b["close"], EXACT),
    "atr_ratio_14": (lambda b, t: t.NATR(b["high"], b["low"], b["close"], 14) / 100, RECURSIVE),
    "mfi_14": (lambda b, t: t.MFI(b["high"], b["low"], b["close"], b["volume"], 14), EXACT),
    "obv_balance_20": (
        lambda b, t: (lambda v: (v - pd.Series(v).shift(20)) / t.SUM(b["volume"], 20))(t.OBV(b["close"], b["volume"])),
        EXACT,
    ),
    "chaikin_oscillator_ratio": (
        lambda b, t: t.ADOSC(b["high"], b["low"], b["close"], b["volume"], 3, 10) / t.SMA(b["volume"], 20),
        RECURSIVE,
    ),
    "balance_of_power_14": (lambda b, t: t.SMA(t.BOP(b["open"], b["high"], b["low"], b["close"]), 14), EXACT),
    "bollinger_width_20": (
        lambda b, t: (lambda bands: (bands[0] - bands[2]) / bands[1])(t.BBANDS(b["close"], 20, 2.0, 2.0)),
        EXACT,
    ),
    "bollinger_percent_b_20": (
        lambda b, t: (lambda bands: (b["close"] - bands[2]) / (bands[0] - bands[2]))(
            t.BBANDS(b["close"], 20, 2.0, 2.0)
        ),
        EXACT,
    ),
    "donchian_width_20": (lambda b, t: (t.MAX(b["high"], 20) - t.MIN(b["low"], 20)) / b["close"], EXACT),
}


@pytest.fixture(scope="module")
def long(market: pl.DataFrame) -> pl.DataFrame:
    """One stock, raw prices, 1,500 sessions."""
    return market.filter(pl.col("symbol") == "AAPL").with_columns(adj_factor=pl.lit(1.0))


@pytest.fixture(scope="module")
def against_talib(long: pl.DataFrame) -> tuple[Arrays, dict[str, np.ndarray]]:
    return {c: long[c].to_numpy() for c in ("open", "high", "low", "close", "volume")}, _compute(long, list(TALIB))


@pytest.mark.parametrize("name", TALIB)
def test_talib(against_talib: tuple[Arrays, dict[str, np.ndarray]], name: str) -> None:
    talib = pytest.importorskip("talib")
    bars, ours = against_talib
    reference, tolerance = TALIB[name]
    _compare(ours[name], reference(bars, talib), tolerance, 1_000)


# --- published reference results --------------------------------------------------------------------------------------

REFERENCES: dict[str, tuple[str, Callable[[Arrays, Arrays], np.ndarray], float]] = {
    "vortex_plus_14": ("vortex", lambda r, b: r["pvi"], EXACT),
    "vortex_minus_14": ("vortex", lambda r, b: r["nvi"], EXACT),
    "choppiness_14": ("chop", lambda r, b: r["chop"], EXACT),
    "chaikin_money_flow_20": ("cmf", lambda r, b: r["cmf"], EXACT),
    "cmo_14": ("cmo", lambda r, b: r["cmo"], EXACT),
    "tsi_25_13": ("tsi", lambda r, b: r["tsi"], RECURSIVE),
    "awesome_oscillator_ratio": ("awesome", lambda r, b: r["oscillator"] / b["close"], EXACT),
    "bull_power_13": ("elder-ray", lambda r, b: r["bullPower"] / b["close"], RECURSIVE),
    "bear_power_13": ("elder-ray", lambda r, b: r["bearPower"] / b["close"], RECURSIVE),
    "pvo_12_26": ("pvo", lambda r, b: r["pvo"] / 100, RECURSIVE),
    "keltner_width_20": ("keltner", lambda r, b: r["width"], RECURSIVE),
    "adx_14": ("adx", lambda r, b: r["adx"], RECURSIVE),
    "atr_ratio_14": ("atr", lambda r, b: r["atr"] / b["close"], RECURSIVE),
    "rsi_14": ("rsi", lambda r, b: r["rsi"], RECURSIVE),
    "bollinger_percent_b_20": ("bb", lambda r, b: r["percentB"], EXACT),
    "ichimoku_tenkan_kijun": ("ichimoku", lambda r, b: (r["tenkanSen"] - r["kijunSen"]) / b["close"], EXACT),
    "ultimate_oscillator": ("uo", lambda r, b: r["ultimate"], EXACT),
}


@pytest.fixture(scope="module")
def published(market_data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    quotes = pl.read_parquet(market_data / "ref_stockindicators_quotes.parquet").filter(pl.col("symbol") == "default")
    bars = (
        quotes.rename({"date": "session"})
        .sort("session")
        .with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64), adj_factor=pl.lit(1.0))
    )
    return bars, pl.read_parquet(market_data / "ref_stockindicators_results.parquet")


@pytest.mark.parametrize("name", REFERENCES)
def test_published_results(published: tuple[pl.DataFrame, pl.DataFrame], name: str) -> None:
    bars, results = published
    indicator, form, tolerance = REFERENCES[name]
    wide = (
        results.filter(pl.col("indicator") == f"{indicator}.standard")
        .pivot("field", index="date", values="value")
        .join(bars.select(date="session"), on="date", how="right", maintain_order="right")
    )
    reference = {c: wide[c].cast(pl.Float64).to_numpy() for c in wide.columns if c != "date"}
    given = {c: bars[c].to_numpy() for c in ("open", "high", "low", "close", "volume")}
    ours = _compute(bars, [name])[name]
    from_row = features.get(name).lookback + (150 if tolerance == RECURSIVE else 30)
    _compare(ours, form(reference, given), tolerance, min(from_row, 400))


# --- statistics -------------------------------------------------------------------------------------------------------


def _yang_zhang(o: np.ndarray, h: np.ndarray, low: np.ndarray, c: np.ndarray) -> float:
    """From rows 0..n, of which row 0 gives only its close."""
    n = len(c) - 1
    night, day = np.log(o[1:] / c[:-1]), np.log(c[1:] / o[1:])
    up, down = np.log(h[1:] / o[1:]), np.log(low[1:] / o[1:])
    satchell = np.mean(up * (up - day) + down * (down - day))
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    return float(np.sqrt(252 * (night.var(ddof=1) + k * day.var(ddof=1) + (1 - k) * satchell)))


def test_statistics_by_hand(long: pl.DataFrame) -> None:
    from scipy import stats

    o, h, low, c, v, m = (long[x].to_numpy() for x in ("open", "high", "low", "close", "volume", "benchmark"))
    r = np.concatenate([[np.nan], np.log(c[1:] / c[:-1])])
    rm = np.concatenate([[np.nan], np.log(m[1:] / m[:-1])])
    rows = np.arange(len(c))

    def at(n: int, function: Callable[[slice], float]) -> np.ndarray:
        out = np.full(len(c), np.nan)
        for i in rows[n:]:
            out[i] = function(slice(i - n + 1, i + 1))
        return out

    expected = {
        "return_5": at(5, lambda w: c[w][-1] / c[w.start - 1] - 1),
        "momentum_250_20": at(250, lambda w: c[w.stop - 21] / c[w.stop - 251] - 1),
        "volatility_20": at(20, lambda w: np.std(r[w], ddof=1) * np.sqrt(252)),
        "skewness_60": at(60, lambda w: stats.skew(r[w], bias=False)),
        "kurtosis_60": at(60, lambda w: stats.kurtosis(r[w], bias=False)),
        "autocorrelation_1_20": at(21, lambda w: np.corrcoef(r[w][1:], r[w][:-1])[0, 1]),
        "autocorrelation_5_60": at(65, lambda w: np.corrcoef(r[w][5:], r[w][:-5])[0, 1]),
        "beta_60": at(60, lambda w: np.cov(r[w], rm[w])[0, 1] / np.var(rm[w], ddof=1)),
        "benchmark_correlation_60": at(60, lambda w: np.corrcoef(r[w], rm[w])[0, 1]),
        "residual_volatility_60": at(60, lambda w: _residual(rm[w], r[w])),
        "benchmark_alpha_60": at(60, lambda w: 252 * stats.linregress(rm[w], r[w]).intercept),
        "parkinson_volatility_20": at(
            20, lambda w: np.sqrt(252 * np.mean(np.log(h[w] / low[w]) ** 2) / (4 * np.log(2)))
        ),
        "garman_klass_volatility_20": at(
            20,
            lambda w: np.sqrt(
                252 * np.mean(0.5 * np.log(h[w] / low[w]) ** 2 - (2 * np.log(2) - 1) * np.log(c[w] / o[w]) ** 2)
            ),
        ),
        "rogers_satchell_volatility_20": at(
            20,
            lambda w: np.sqrt(
                252 * np.mean(np.log(h[w] / c[w]) * np.log(h[w] / o[w]) + np.log(low[w] / c[w]) * np.log(low[w] / o[w]))
            ),
        ),
        "yang_zhang_volatility_20": at(20, lambda w: _yang_zhang(*(x[w.start - 1 : w.stop] for x in (o, h, low, c)))),
        "downside_volatility_20": at(20, lambda w: np.sqrt(252 * np.mean(np.minimum(r[w], 0) ** 2))),
        "drawdown_60": at(60, lambda w: c[w][-1] / c[w].max() - 1),
        "max_drawdown_60": at(60, lambda w: (c[w] / np.maximum.accumulate(c[w]) - 1).min()),
        "rows_since_high_250": at(250, lambda w: np.argmax(c[w][::-1]) / 249),
        "sharpe_60": at(60, lambda w: np.sqrt(252) * r[w].mean() / r[w].std(ddof=1)),
        "tail_ratio_60": at(60, lambda w: np.log(-np.quantile(r[w], 0.95) / np.quantile(r[w], 0.05))),
        "return_rank_60": at(60, lambda w: stats.percentileofscore(r[w], r[w][-1], "mean") / 100 + 0.5 / 60),
        "price_zscore_20": at(20, lambda w: (c[w][-1] - c[w].mean()) / c[w].std(ddof=1)),
        "variance_ratio_5_60": at(
            64,
            lambda w: np.var([r[w][k : k + 5].sum() for k in range(60)], ddof=1) / (5 * np.var(r[w], ddof=1)),
        ),
        "illiquidity_ratio_20_120": at(
            120,
            lambda w: np.log(
                np.mean((np.abs(np.expm1(r)) / (c * v))[w][-20:]) / np.mean((np.abs(np.expm1(r)) / (c * v))[w])
            ),
        ),
        "ewma_volatility": pd.Series(r).pow(2).ewm(alpha=0.06, adjust=True).mean().mul(252).pow(0.5).to_numpy(),
        "volume_volatility_20": at(20, lambda w: v[w].std(ddof=1) / v[w].mean()),
    }
    ours = _compute(long, list(expected))
    for name, reference in expected.items():
        try:
            _compare(ours[name], reference, RECURSIVE if name == "ewma_volatility" else EXACT, 300)
        except AssertionError as error:
            raise AssertionError(name) from error


def _residual(x: np.ndarray, y: np.ndarray) -> float:
    slope, intercept = np.polyfit(x, y, 1)
    return float(np.sqrt(252 * np.sum((y - slope * x - intercept) ** 2) / (len(x) - 2)))
