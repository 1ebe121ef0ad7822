"""Membership is point in time, and history is counted up to the row."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.universe import check_membership, members, short_history


@pytest.fixture(scope="module")
def bars(sample_dir: Path) -> pl.DataFrame:
    return pl.read_csv(sample_dir / "bars" / "*.csv", try_parse_dates=True).sort("symbol", "session")


def spans(*rows: tuple[str, date, date | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"symbol": pl.String, "start": pl.Date, "end": pl.Date}, orient="row")


def test_members_only_within_their_spans(bars: pl.DataFrame) -> None:
    membership = spans(
        ("AAPL", date(2010, 1, 4), date(2010, 1, 8)),
        ("AAPL", date(2010, 1, 7), date(2010, 1, 12)),  # overlapping: each row once
        ("AAPL", date(2023, 9, 20), None),
        ("IBM", date(2010, 1, 5), date(2010, 1, 5)),
        ("XXXX", date(2000, 1, 1), None),
    )
    kept = members(membership, bars)
    apple = kept.filter(pl.col("symbol") == "AAPL").get_column("session").to_list()
    assert apple == [date(2010, 1, d) for d in (4, 5, 6, 7, 8, 11, 12)] + [date(2023, 9, 20), date(2023, 9, 21)]
    assert kept.filter(pl.col("symbol") == "IBM").get_column("session").to_list() == [date(2010, 1, 5)]
    assert kept.get_column("symbol").unique().sort().to_list() == ["AAPL", "IBM"]
    assert kept.columns == bars.columns


def test_order_of_the_rows_is_kept(bars: pl.DataFrame) -> None:
    shuffled = bars.sort("session", "symbol", descending=True)
    kept = members(spans(("AAPL", date(2000, 1, 1), None), ("IBM", date(2000, 1, 1), None)), shuffled)
    assert kept.equals(shuffled.filter(pl.col("symbol").is_in(["AAPL", "IBM"])))


@pytest.mark.parametrize(
    "wrong",
    [
        spans(("AAPL", date(2010, 1, 4), date(2010, 1, 3))),
        pl.DataFrame({"symbol": ["A"], "start": [None], "end": [None]}, schema_overrides={"start": pl.Date}),
        pl.DataFrame({"symbol": ["A"], "start": [date(2010, 1, 1)]}),
    ],
)
def test_impossible_membership_is_refused(wrong: pl.DataFrame) -> None:
    with pytest.raises(DataError):
        check_membership(wrong)


def test_short_history_names_the_reason(bars: pl.DataFrame) -> None:
    few = short_history(bars.filter(pl.col("session") <= date(2012, 5, 22)), 252)
    assert few.select("symbol", "sessions", "first").rows() == [("META", 3, date(2012, 5, 18))]
    assert few["reason"][0] == "3 sessions of history, 252 are needed"
