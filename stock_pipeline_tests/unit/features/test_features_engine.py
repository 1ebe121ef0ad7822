from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stock_pipeline.core import features
from stock_pipeline.core.errors import DataError
from stock_pipeline.core.features import engine

pytestmark = pytest.mark.requirement("R1.1")

ALL = features.feature_set(["technical", "statistical", "alpha158"])


def test_pieces_threads_and_batches_do_not_change_a_bit(market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = features.compute(market, ALL, threads=1)
    assert whole.height > 8_000
    start = date(2021, 6, 1)
    pieces = list(features.compute_batches(market, ALL, start, max_rows=200))
    assert len(pieces) > 3
    assert all(a["session"].max() < b["session"].min() for a, b in pairwise(pieces))
    together = pl.concat(pieces).sort("symbol", "session")
    assert together.equals(whole.filter(pl.col("session") >= start))
    monkeypatch.setattr(engine, "BATCH_ROWS", 1)
    assert features.compute(market, ALL, threads=3).equals(whole)


def test_night_by_night_equals_all_at_once(market: pl.DataFrame) -> None:
    whole = features.compute(market, ALL)
    for day in market["session"].unique().sort()[-3:]:
        known = features.with_lookback(market.filter(pl.col("session") <= day), day, ALL.lookback)
        assert features.compute(known, ALL, day).equals(whole.filter(pl.col("session") == day))


def test_corporate_actions_do_not_show_in_features(market: pl.DataFrame) -> None:
    """A 2:1 split with its factor changes no feature: prices and volumes are adjusted."""
    split = pl.col("session") >= date(2020, 6, 1)
    raw = market.with_columns(
        *(pl.when(split).then(pl.col(c) / 2).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")),
        pl.when(split).then(pl.col("volume") * 2).otherwise(pl.col("volume")).alias("volume"),
        pl.when(split).then(pl.col("adj_factor") * 2).otherwise(pl.col("adj_factor")).alias("adj_factor"),
    )
    assert features.compute(raw, ALL).equals(features.compute(market, ALL))


def test_cross_sections_equal_polars(market: pl.DataFrame) -> None:
    frame = features.compute(market, ALL)
    seen = frame.select(
        "session",
        "rank_return_20",
        "zscore_return_20",
        base=pl.col("return_20").cast(pl.Float64),
    ).with_columns(
        rank=(pl.col("base").rank("average") / pl.col("base").count()).over("session"),
        zscore=((pl.col("base") - pl.col("base").mean()) / pl.col("base").std()).over("session"),
    )
    seen = seen.drop_nulls("base")
    assert seen["rank_return_20"].null_count() == 0
    np.testing.assert_allclose(seen["rank_return_20"], seen["rank"], rtol=1e-6)
    np.testing.assert_allclose(seen["zscore_return_20"], seen["zscore"], rtol=1e-4, atol=1e-5)


def test_no_rows_give_no_rows(market: pl.DataFrame) -> None:
    frame = features.compute(market.clear(), ALL)
    assert frame.is_empty()
    assert frame.columns == ["symbol", "session", *ALL.names]
    assert features.compute(market, ALL, date(2030, 1, 1)).is_empty()
    assert list(features.compute_batches(market.clear(), ALL)) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b.reverse(), r"not sorted.*row 1"),
        (lambda b: pl.concat([b, b.head(1)]), "not sorted"),
        (lambda b: pl.concat([b.head(5), b.slice(4)]), r"row 5 .* follows"),
        (lambda b: b.sort("session", "symbol"), "not sorted"),
        (lambda b: b.drop("adj_factor"), "lack a column: 'adj_factor'"),
        (lambda b: b.with_columns(adj_factor=pl.lit(None, pl.Float64)), "'adj_factor' of the bars holds no values"),
        (lambda b: b.drop("session"), "lack a column: 'session'"),
        (lambda b: b.with_columns(pl.col("session").cast(pl.Datetime)), "'session' of the bars has the wrong type"),
        (lambda b: b.with_columns(session=pl.lit(None, pl.Date)), "'session' of the bars holds nulls"),
    ],
)
def test_unusable_frames_are_refused(market: pl.DataFrame, spoil: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        features.compute(spoil(market), features.feature_set(["return_5"]))  # type: ignore[operator]


def test_bad_values_give_nulls_in_their_windows_and_nowhere_else(market: pl.DataFrame) -> None:
    fs = features.feature_set(
        ["sma_ratio_20", "max_return_20", "return_rank_60", "MAX20", "CORR20", "autocorrelation_1_20"]
    )
    one = market.filter(pl.col("symbol") == market["symbol"][0])
    good = features.compute(one, fs)
    for bad in (None, float("nan"), float("inf"), -1.0, 0.0):
        hit = pl.int_range(pl.len()) == 500
        spoilt = one.with_columns(
            pl.when(hit).then(pl.lit(bad, pl.Float64)).otherwise(pl.col(c)).alias(c) for c in ("close", "high")
        )
        seen = features.compute(spoilt, fs)
        assert seen[:500].equals(good[:500])
        assert seen[500 + fs.lookback + 1 :].equals(good[500 + fs.lookback + 1 :])
        if bad is None or not np.isfinite(bad):
            assert seen[500:520].select(fs.names).null_count().row(0) == (20,) * len(fs.names)
        assert seen.select(pl.all_horizontal(pl.col(fs.names).is_finite().all())).item()


def test_real_suspensions_are_harmless(market_data: Path) -> None:
    """Chinese shares, whose suspensions are flat rows without volume: finite, and the same whether cut or whole."""
    raw = pl.read_parquet(market_data / "cn_61_raw.parquet").rename({"date": "session"})
    idle = raw.group_by("symbol").agg((pl.col("volume") == 0).sum().alias("n")).sort("n", "symbol").tail(4)["symbol"]
    bars = (
        raw.filter(pl.col("symbol").is_in(idle.implode()))
        .sort("symbol", "session")
        .with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64), adj_factor=pl.lit(1.0))
    )
    assert (bars["volume"] == 0).sum() > 100
    fs = features.available(ALL, features.columns_with_data(bars))
    frame = features.compute(bars, fs)
    assert frame.select(pl.all_horizontal(pl.col(fs.names).is_finite().all())).item()
    start = bars["session"].unique().sort()[-200]
    part = features.with_lookback(bars, start, fs.lookback)
    assert part.height < bars.height / 2
    assert features.compute(part, fs, start).equals(frame.filter(pl.col("session") >= start))


def test_days_without_trading_are_harmless(market: pl.DataFrame) -> None:
    """A suspension: price repeated, no volume. Nothing becomes infinite or absurdly large."""
    still = pl.col("session").is_between(date(2020, 1, 1), date(2020, 12, 31))
    last = pl.col("close").filter(pl.col("session") < date(2020, 1, 1)).last().over("symbol")
    flat = market.with_columns(
        *(pl.when(still).then(last).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")),
        *(pl.when(still).then(0.0).otherwise(pl.col(c)).alias(c) for c in ("volume", "amount")),
        adj_factor=pl.lit(1.0),
    )
    frame = features.compute(flat, ALL)
    names = list(ALL.names)
    assert frame.select(pl.all_horizontal(pl.col(names).is_finite().all())).item()
    largest = frame.select(pl.col(names).abs().max()).row(0, named=True)
    assert {n: v for n, v in largest.items() if v is not None and v > 1e5} == {}
    within = frame.filter(pl.col("session").is_between(date(2020, 9, 1), date(2020, 12, 31)))
    for undefined in ("rsi_14", "cci_20", "bollinger_percent_b_20", "mfi_14", "VMA20", "CORR20", "skewness_20"):
        assert within[undefined].null_count() == within.height, undefined
    assert within["zero_volume_share_20"].unique().to_list() == [1.0]
