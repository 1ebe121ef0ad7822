"""The same lake on an object store: a real S3 server, several writers without a file lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date

import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.services import object_store

DAY = date(2020, 1, 2)
FRAME = pl.DataFrame({"symbol": ["B", "A"], "session": [DAY, DAY], "close": [1.0, 2.0]})


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, str]]:
    with object_store() as made:
        yield made


def test_tables_on_s3_behave_as_on_disk(options: dict[str, str]) -> None:
    lake = Lake("s3://lake/one", options)
    assert (lake.exists("market/bars"), lake.version("market/bars"), lake.tables()) == (False, None, [])
    assert lake.write_sessions("market/bars", FRAME, start=DAY, end=DAY) == 0
    assert lake.write_sessions("market/bars", FRAME, start=DAY, end=DAY) == 0
    assert lake.write_sessions("market/bars", FRAME.with_columns(close=9.0), start=DAY, end=DAY) == 1
    assert lake.read("market/bars")["close"].to_list() == [9.0, 9.0]
    assert lake.read("market/bars", version=0, symbols=["A"])["close"].to_list() == [2.0]
    assert lake.sql("SELECT sum(close) FROM market.bars").item() == 18.0
    lake.replace("flat", pl.DataFrame({"x": [1]}))
    assert lake.versions() == {"flat": 0, "market/bars": 1}
    assert lake.last_session("market/bars") == DAY
    assert lake.vacuum("market/bars", retention_days=0) == 1
    with pytest.raises(DataError, match="share its folder"):
        lake.replace("market/bars/inside", FRAME)


def test_writers_on_several_machines_repeat_and_lose_nothing(options: dict[str, str]) -> None:
    failures: list[Exception] = []

    def write(value: float) -> None:
        mine = Lake("s3://lake/two", options, attempts=30)
        try:
            for number in range(4):
                day = date(2021, 1, 4 + number)
                frame = FRAME.with_columns(session=pl.lit(day), close=pl.lit(value))
                mine.write_sessions("written", frame, start=day, end=day)
                mine.append_new("appended", frame)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    lake = Lake("s3://lake/two", options)
    for table in ("written", "appended"):
        rows = lake.read(table)
        assert rows.height == 8
        assert set(rows.group_by("session").agg(pl.col("close").n_unique())["close"]) == {1}
