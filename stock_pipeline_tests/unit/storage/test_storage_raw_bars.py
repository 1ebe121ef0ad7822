"""Raw bars: nothing is lost, nothing is added twice, the newest batch of a key is the current one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.raw_bars import TABLE, RawBars


def bars(*rows: tuple[str, int, float], factor: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "symbol": symbol,
                "session": date(2024, 1, day),
                "close": close,
                "adj_factor": factor,
                "currency": "USD",
                "known_at": datetime(2024, 1, day, 21, tzinfo=UTC),
            }
            for symbol, day, close in rows
        ],
        schema=BAR_SCHEMA,
    )


@pytest.fixture
def store(tmp_path: Path) -> RawBars:
    return RawBars(Lake(tmp_path / "lake"))


@pytest.mark.requirement("R3.1")
def test_only_new_and_revised_rows_are_added_and_old_ones_stay(store: RawBars) -> None:
    assert store.append(bars(("A", 2, 10.0), ("A", 3, 11.0))).added == 2
    again = store.append(bars(("A", 2, 10.0), ("A", 3, 11.0)))
    assert (again.added, again.first_session) == (0, None)
    revised = store.append(bars(("A", 2, 10.5), ("A", 3, 11.0), ("A", 4, 12.0)))
    assert (revised.added, revised.revised, revised.first_session) == (2, 1, date(2024, 1, 2))
    assert store.current()["close"].to_list() == [10.5, 11.0, 12.0]
    kept = store.lake.read(TABLE).filter(pl.col("session") == date(2024, 1, 2))
    assert sorted(kept["close"]) == [10.0, 10.5]


@pytest.mark.requirement("R3.1", "R7.2")
def test_two_rows_of_a_key_in_one_batch_are_both_kept(store: RawBars) -> None:
    store.append(bars(("A", 2, 10.0), ("A", 2, 99.0)))
    assert sorted(store.current()["close"]) == [10.0, 99.0]
    assert store.append(bars(("A", 2, 99.0), ("A", 2, 10.0))).added == 0, "their order is no revision"
    store.append(bars(("A", 2, 10.0)))
    assert store.current()["close"].to_list() == [10.0], "the vendor took one back"


def test_rounding_of_the_factor_is_no_revision_but_a_new_factor_is(store: RawBars) -> None:
    store.append(bars(("A", 2, 10.0), factor=1.0))
    assert store.append(bars(("A", 2, 10.0), factor=1.0 + 1e-7)).added == 0
    assert store.append(bars(("A", 2, 10.0), factor=1.02)).added == 1


def test_rows_outside_the_fetched_range_are_untouched(store: RawBars) -> None:
    store.append(bars(("A", 2, 10.0), ("B", 9, 5.0)))
    store.append(bars(("A", 3, 11.0)))
    assert store.current()["close"].to_list() == [10.0, 11.0, 5.0]
    assert store.current(start=date(2024, 1, 3), end=date(2024, 1, 3))["close"].to_list() == [11.0]
