"""Whatever rows a vendor's file holds: none is lost or altered, and a date is right or refused, never wrong."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.source_settings import FilesSource
from stock_pipeline.sources import build

days = st.dates(date(1990, 1, 1), date(2030, 12, 31))
price = st.one_of(st.none(), st.floats(), st.floats(0.01, 1000.0))
rows = st.lists(st.tuples(st.sampled_from(["A", "BRK.B", "000001"]), days, price, price), min_size=1, max_size=20)


def read_back(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        if name.endswith(".csv"):
            frame.write_csv(file)
        else:
            frame.write_parquet(file)
        return build(FilesSource(path=folder)).fetch(None, None).bars


@pytest.mark.requirement("R7.1")
@given(rows, st.sampled_from(["bars.csv", "bars.parquet"]))
def test_every_row_comes_through_as_it_was(table: list[tuple], name: str) -> None:
    schema = {"symbol": pl.String, "session": pl.Date, "open": pl.Float64, "close": pl.Float64}
    frame = pl.DataFrame(table, schema=schema, orient="row")
    bars = read_back(frame, name)
    assert bars.schema == BAR_SCHEMA
    assert bars.select(*schema).equals(frame.sort("symbol", "session", maintain_order=True))
    assert bars["known_at"].is_not_null().all()
    assert (bars["adj_factor"] == 1.0).all()


@pytest.mark.requirement("R7.1")
@given(st.lists(days, min_size=1, max_size=6), st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m-%d-%Y"]))
def test_a_date_is_right_or_refused(dates: list[date], form: str) -> None:
    ordered = sorted(set(dates))
    frame = pl.DataFrame({"symbol": "A", "session": [d.strftime(form) for d in ordered], "close": 1.0})
    if all(d.day <= 12 for d in ordered):
        with pytest.raises(DataError, match="date_format"):
            read_back(frame, "bars.csv")
    else:
        assert read_back(frame, "bars.csv")["session"].to_list() == ordered
