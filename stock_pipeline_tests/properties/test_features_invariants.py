"""Every registered feature: no look-ahead, no leakage between symbols, incremental equals full, bit for bit.

All features are computed at once per example and all columns compared; a failure names the columns.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.core import features
from stock_pipeline.core.errors import DataError
from stock_pipeline.core.features import FeatureSet

pytestmark = pytest.mark.requirement("R1.1", "V1")

ALL = features.feature_set(["technical", "statistical", "alpha158"])
OWN = FeatureSet("own", tuple(f for f in ALL.features if f.cross_section is None))
LOOKBACKS = sorted({f.lookback for f in ALL.features})
FIRST = date(2015, 1, 1)


@st.composite
def markets(draw: st.DrawFn) -> pl.DataFrame:
    """Bars of two or three symbols: entries and exits, suspensions, equal prices, flat and empty stretches, holes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length = draw(st.one_of(st.integers(8, 120), st.integers(255, 320)))
    tick = draw(st.sampled_from([0.0, 0.01, 0.5]))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    missing = draw(st.sampled_from([0.0, 0.0, 0.01, 0.1]))
    idle = draw(st.sampled_from([0.0, 0.02, 0.3]))
    return _market(rng, length, draw(st.integers(2, 3)), tick, scale, missing, idle)


def long_market() -> pl.DataFrame:
    """Three symbols with 600 sessions."""
    return _market(np.random.default_rng(3), 600, 3, 0.01, 1.0, 0.0, 0.0)


def _market(
    rng: np.random.Generator, length: int, symbols: int, tick: float, scale: float, missing: float, idle: float
) -> pl.DataFrame:
    benchmark = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, length)))
    parts = []
    for k in range(symbols):
        begin, end = (
            sorted(int(i) for i in rng.integers(0, length, 2)) if k and idle and rng.random() < 0.5 else (0, length)
        )
        rows = np.arange(begin, end)
        rows = rows[(rng.random(len(rows)) >= idle / 4) | (rows == 0)]
        close = 40.0 * np.exp(np.cumsum(rng.standard_t(3, len(rows)) * 0.01))
        if idle and len(rows) > 60 and rng.random() < 0.5:
            flat = int(rng.integers(0, len(rows) - 50))
            close[flat : flat + 50] = close[flat]
        if tick:
            close = np.maximum(np.round(close / tick), 1.0) * tick
        close *= scale
        quiet = rng.random(len(rows)) < idle
        noise = np.where(quiet, 0.0, 1.0) * rng.normal(0, 0.005, len(rows))
        opening = close * (1 + noise)
        frame = pl.DataFrame(
            {
                "symbol": [f"S{k}"] * len(rows),
                "session": [FIRST + timedelta(days=int(i)) for i in rows],
                "open": opening,
                "high": np.maximum(opening, close) * (1 + np.where(quiet, 0.0, rng.random(len(rows)) * 0.01)),
                "low": np.minimum(opening, close) * (1 - np.where(quiet, 0.0, rng.random(len(rows)) * 0.01)),
                "close": close,
                "volume": np.where(quiet, 0.0, np.round(np.exp(rng.normal(10, 1, len(rows))))),
                "adj_factor": np.cumprod(np.where(rng.random(len(rows)) < 0.01, 2.0, 1.0)),
                "benchmark": benchmark[rows],
            },
            schema_overrides={"symbol": pl.String, "session": pl.Date},
        ).with_columns(amount=pl.col("close") * pl.col("volume"))
        holes = [
            pl.when(pl.Series(rng.random(len(rows)) >= missing)).then(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close", "volume", "amount", "benchmark")
        ]
        parts.append(frame.with_columns(holes))
    return pl.concat(parts)


def _compute(bars: pl.DataFrame, fs: FeatureSet = ALL, start: date | None = None) -> pl.DataFrame:
    usable = features.available(fs, features.columns_with_data(bars))
    return features.compute(bars, usable, start)


def assert_well_formed(bars: pl.DataFrame, frame: pl.DataFrame) -> None:
    """Keys kept, Float32, finite or null, and null in the rows before the look-back is full."""
    names = frame.columns[2:]
    assert frame.select("symbol", "session").equals(bars.select("symbol", "session"))
    assert {frame.schema[n] for n in names} == {pl.Float32()}
    assert frame.select(pl.all_horizontal(pl.col(names).is_finite().all())).item()
    place = pl.int_range(pl.len()).over("symbol")
    early = [pl.col(f.name).filter(place < f.lookback).count().alias(f.name) for f in ALL.features if f.name in names]
    assert sum(frame.select(early).row(0)) == 0


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal keys, nulls and float bits (so that -0.0 is not 0.0), in the columns that both have."""
    names = [c for c in left.columns[2:] if c in right.columns]
    assert left.select("symbol", "session").equals(right.select("symbol", "session"))
    different = (_bits(left, names) != _bits(right, names)).any(axis=0)
    assert [name for name, unequal in zip(names, different, strict=True) if unequal] == []


def _bits(frame: pl.DataFrame, names: list[str]) -> np.ndarray:
    """The floats' bits; nulls become the one NaN, which `assert_well_formed` excludes elsewhere."""
    return np.ascontiguousarray(frame.select(names).to_numpy()).view(np.uint32)


@given(markets(), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_the_future_changes_nothing(bars: pl.DataFrame, share: float, seed: int) -> None:
    sessions = bars["session"].unique().sort()
    now = sessions[int(share * (len(sessions) - 1))]
    past = bars.filter(pl.col("session") <= now)
    noise = np.random.default_rng(seed).lognormal(0, 1, bars.height)
    altered = bars.with_columns(
        pl.when(pl.col("session") > now).then(pl.col(c) * pl.Series(noise)).otherwise(pl.col(c)).alias(c)
        for c in ("open", "high", "low", "close", "volume", "amount", "benchmark", "adj_factor")
    )
    full, with_other_future = _compute(bars), _compute(altered)
    assert_well_formed(bars, full)
    until_now = pl.col("session") <= now
    assert_same_bits(full.filter(until_now), _compute(past))
    assert_same_bits(full.filter(until_now), with_other_future.filter(until_now))


@given(markets(), st.floats(0.0, 1.0), st.lists(st.sampled_from(LOOKBACKS), min_size=3, max_size=3))
def test_incremental_equals_full(bars: pl.DataFrame, share: float, lookbacks: list[int]) -> None:
    sessions = bars["session"].unique().sort()
    start = sessions[int(share * (len(sessions) - 1))]
    full = _compute(bars)
    expected = full.filter(pl.col("session") >= start)
    assert_same_bits(expected, _compute(bars, ALL, start))
    for rows in [*lookbacks, ALL.lookback]:
        assert_same_bits(expected, _from_tail(bars, start, rows))


def test_incremental_equals_full_for_each_lookback() -> None:
    bars = long_market()
    start = bars["session"][300]
    expected = _compute(bars).filter(pl.col("session") >= start)
    assert expected.select(ALL.names).null_count().sum_horizontal().item() < 0.01 * expected.height * len(ALL.names)
    seen = [_from_tail(bars, start, rows) for rows in LOOKBACKS]
    for frame in seen:
        assert_same_bits(expected, frame)
    assert {name for frame in seen for name in frame.columns[2:]} == set(ALL.names)


def _from_tail(bars: pl.DataFrame, start: date, rows: int) -> pl.DataFrame:
    """The features with exactly this look-back (all, when it is the longest), from that many rows before ``start``."""
    fs = ALL if rows == ALL.lookback else FeatureSet("some", tuple(f for f in ALL.features if f.lookback == rows))
    earlier = (pl.col("session") < start).sum().over("symbol") - pl.int_range(pl.len()).over("symbol")
    tail = bars.filter(earlier <= rows)
    given = features.columns_with_data(tail)
    if not any(set(f.inputs) <= set(given) for f in fs.features):
        return tail.filter(pl.col("session") >= start).select("symbol", "session")
    return features.compute(tail, features.available(fs, given), start)


@given(markets(), st.integers(0, 2**32 - 1))
def test_other_symbols_change_nothing_but_cross_sections_of_their_sessions(bars: pl.DataFrame, seed: int) -> None:
    chosen = pl.col("symbol") == "S0"
    noise = np.random.default_rng(seed).lognormal(0, 1, bars.height)
    others = bars.with_columns(
        pl.when(chosen).then(pl.col(c)).otherwise(pl.col(c) * pl.Series(noise)).alias(c)
        for c in ("open", "high", "low", "close", "volume", "amount", "adj_factor")
    )
    full = _compute(bars)
    own = full.filter(chosen).select("symbol", "session", *(n for n in OWN.names if n in full.columns))
    assert_same_bits(own, _compute(bars.filter(chosen), OWN))
    assert_same_bits(own, _compute(others, OWN).filter(chosen))

    last = bars["symbol"][-1]
    untouched = ~pl.col("session").is_in(bars.filter(pl.col("symbol") == last)["session"].implode())
    without_last = _compute(bars.filter(pl.col("symbol") != last))
    assert_same_bits(full.filter(untouched), without_last.filter(untouched))


@given(markets(), st.randoms(use_true_random=False))
def test_a_frame_out_of_order_is_refused(bars: pl.DataFrame, random: object) -> None:
    order = list(range(bars.height))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = bars[order]
    if shuffled.equals(bars):
        return
    with pytest.raises(DataError, match="not sorted"):
        features.compute(shuffled, features.feature_set(["return_5"]))
