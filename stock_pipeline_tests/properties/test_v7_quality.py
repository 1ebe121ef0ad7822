"""V7: every input row ends in exactly one of clean, repaired, quarantined; the past decides, and the order does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_pipeline.core.quality import QualityRules, validate_bars
from stock_pipeline_tests.unit.quality.quality_bars import (
    CORRUPTIONS,
    SYMBOLS,
    corrupt,
    in_order,
    originals,
    sample_bars,
    sessions_of,
)

RULES = QualityRules()
SPACING = 40
pytestmark = pytest.mark.requirement("V7")


@st.composite
def spaced_corruptions(draw: st.DrawFn) -> dict[int, str]:
    """Corruptions that are far enough from each other, and from the start, to be judged one by one."""
    bars = sample_bars()
    # Error and news on one day cannot be told apart: the errors fall on days of ordinary volume.
    usual = bars["volume"].rolling_median(20).shift(1)
    ordinary = bars.filter((bars["volume"] < 2 * usual).fill_null(False))
    slots = [
        int(number)
        for symbol in SYMBOLS
        for number in ordinary.filter(pl.col("symbol") == symbol)["amount"].to_list()[60:-5:SPACING]
    ]
    chosen = draw(st.lists(st.sampled_from(slots), min_size=1, max_size=8, unique=True))
    return {number: draw(st.sampled_from(sorted(CORRUPTIONS))) for number in chosen}


@st.composite
def crowded_corruptions(draw: st.DrawFn) -> dict[int, str]:
    """Many corruptions, close together, so that rules meet."""
    last = sample_bars().height - 1
    middle = draw(st.integers(0, last))
    near = st.integers(max(0, middle - 12), min(last, middle + 12))
    numbers = draw(st.lists(st.one_of(near, st.integers(0, last)), min_size=1, max_size=25, unique=True))
    return {number: draw(st.sampled_from(sorted(CORRUPTIONS))) for number in numbers}


@given(picks=spaced_corruptions())
@settings(max_examples=100)
@pytest.mark.requirement("R7.2", "R7.3")
def test_each_kind_of_corruption_is_found_and_has_its_fate(picks: dict[int, str]) -> None:
    bars = sample_bars()
    raw = corrupt(bars, picks)
    result = validate_bars(raw, sessions=sessions_of(bars), rules=RULES)
    found = result.findings
    rules_of: dict[float, set[str]] = {}
    for number, rules in result.quarantined.select("amount", "rules").iter_rows():
        rules_of.setdefault(number, set()).update(rules)
    repaired = result.validated.filter(pl.col("status") == "repaired")
    changed = dict(repaired.select("amount", "repairs").iter_rows())
    for place, kind in picks.items():
        number = float(place)
        _, expected, severity = CORRUPTIONS[kind]
        if severity == "quarantine":
            assert rules_of.get(number, set()) & expected, (kind, rules_of.get(number))
        else:
            key = bars.filter(pl.col("amount") == number)
            hits = found.join(key.select("symbol", "session"), on=["symbol", "session"])
            assert set(hits["rule"]) & expected, (kind, hits["rule"].to_list())
            assert number in changed, kind
    assert validate_order(result.validated)


def validate_order(validated: pl.DataFrame) -> bool:
    """What passes is fit for use: positive, finite, ordered, one row a session."""
    good = validated.select(
        ((pl.col("close") > 0) & pl.col("close").is_finite()).all()
        & (pl.col("high") >= pl.max_horizontal("open", "close")).fill_null(True).all()
        & (pl.col("low") <= pl.min_horizontal("open", "close")).fill_null(True).all()
        & (pl.col("volume") >= 0).fill_null(True).all()
        & pl.struct("symbol", "session").is_unique().all()
        & pl.col("quality_score").is_between(0, 100).all()
    ).item()
    return bool(good)


@given(picks=crowded_corruptions(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_every_row_has_one_fate_whatever_the_order(picks: dict[int, str], seed: int) -> None:
    bars = sample_bars()
    raw = corrupt(bars, picks)
    result = validate_bars(raw, sessions=sessions_of(bars), rules=RULES)
    assert result.validated.height + result.quarantined.height == raw.height
    assert_frame_equal(in_order(originals(result.validated, result.quarantined)), in_order(raw), check_exact=True)
    assert result.quarantined["rules"].list.len().min() != 0
    assert not result.quarantined["reason"].is_null().any()
    assert validate_order(result.validated)
    shuffled = raw.sample(fraction=1.0, shuffle=True, seed=seed)
    assert_same(result, validate_bars(shuffled, sessions=sessions_of(bars), rules=RULES))


@given(picks=crowded_corruptions(), data=st.data())
@settings(max_examples=100)
def test_night_by_night_equals_all_history(picks: dict[int, str], data: st.DataObject) -> None:
    bars = sample_bars()
    sessions = sessions_of(bars)
    raw = corrupt(bars, picks).filter(pl.col("session").is_not_null())
    # Whole stretches without rows, so that windows reach over suspensions.
    symbol = data.draw(st.sampled_from(SYMBOLS))
    gap, length = data.draw(st.integers(0, len(sessions) - 1)), data.draw(st.integers(0, 45))
    hole = pl.col("session").is_between(sessions[gap], sessions[min(gap + length, len(sessions) - 1)])
    raw = raw.filter(~((pl.col("symbol") == symbol) & hole))
    raw = raw.filter(pl.col("session") <= sessions[-1])
    full = validate_bars(raw, sessions=sessions, rules=RULES)
    touched = sorted(picks)[0]
    near = sessions.index(bars.filter(pl.col("amount") == touched)["session"][0])
    first = data.draw(st.integers(max(0, near - 3), min(len(sessions) - 1, near + 30)))
    last = min(first + data.draw(st.sampled_from([0, 1, 5, 60])), len(sessions) - 1)
    start = max(0, first - RULES.lookback)
    until = sessions[last]
    part = raw.filter(pl.col("session").is_between(sessions[start], until))
    night = validate_bars(part, sessions=sessions[start : last + 1], rules=RULES, emit_from=sessions[first])
    inside = pl.col("session").is_between(sessions[first], until)
    for name in ("validated", "quarantined", "findings", "scores"):
        assert_frame_equal(getattr(full, name).filter(inside), getattr(night, name), check_exact=True)


def assert_same(left: Any, right: Any) -> None:
    for name in ("validated", "quarantined", "findings", "scores"):
        assert_frame_equal(getattr(left, name), getattr(right, name), check_exact=True)


def test_the_sample_itself_has_no_false_alarm() -> None:
    bars = sample_bars()
    result = validate_bars(bars, sessions=sessions_of(bars), rules=RULES)
    assert result.quarantined.is_empty()
    assert (result.validated["status"] == "clean").all()
    assert bars["session"].max() - bars["session"].min() > timedelta(days=800)
