"""The predictions page of a market with thousands of symbols: only what is shown is read, drawn and sent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from stock_pipeline.api.console.prediction_pages import ROWS, SPARK_SESSIONS
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import UNPREDICTED
from stock_pipeline_tests.api_service import app_for, signed_in
from stock_pipeline_tests.published import SESSIONS, predictions, publish

pytestmark = pytest.mark.requirement("A1")

SYMBOLS = 5_000
BARS = "market/validated_bars"
DAYS = [SESSIONS[-1] - timedelta(days=back) for back in range(120, -1, -1)]


class CountingLake(Lake):
    """A lake that remembers how many rows of bars were read, and of which symbols."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.rows, self.asked = 0, [0]

    def read(self, table: str, **selection: Any) -> pl.DataFrame:
        found = super().read(table, **selection)
        if table == BARS:
            self.rows += found.height
            self.asked.append(found["symbol"].n_unique())
        return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wide")
    lake, last = Lake(root), SESSIONS[-1]
    publish(lake, last, SYMBOLS)
    names = predictions(last, SYMBOLS)["symbol"]
    bars = names.to_frame().join(pl.DataFrame({"session": DAYS}), how="cross")
    bars = bars.with_row_index("place").select(
        "symbol", "session", close=100.0 + pl.col("place") % 7, adj_factor=pl.lit(1.0)
    )
    lake.write_sessions(BARS, bars, start=DAYS[0], end=last)
    left_out = pl.DataFrame({"symbol": [f"U{place:04d}" for place in range(1_200)]}).with_columns(
        session=pl.lit(last), reason=pl.lit("too little history"), detail=pl.lit("3 of 252 sessions")
    )
    lake.write_sessions(UNPREDICTED, left_out, start=last, end=last)
    return root


@pytest.fixture
def counted(wide: Path) -> CountingLake:
    return CountingLake(wide)


@pytest.fixture
def reader(counted: CountingLake) -> TestClient:
    app = app_for(counted, poll_seconds=60)
    app.state.publications.refresh()
    return signed_in(app)


def test_a_page_reads_and_draws_only_the_symbols_that_it_shows(reader: TestClient, counted: CountingLake) -> None:
    first = reader.get("/").text
    assert f"1 to {ROWS} of {SYMBOLS:,}" in first
    assert first.count('class="rowlink"') == first.count("<polyline") == ROWS
    assert counted.asked[-1] == ROWS, "prices of the symbols of the page, and of no other"
    bound = ROWS * SPARK_SESSIONS * 3 // 2 + ROWS
    assert 0 < counted.rows <= bound

    again = counted.rows
    assert reader.get("/").text.count("<polyline") == ROWS
    assert counted.rows == again, "drawn once a publication"
    assert reader.get("/", params={"page": 2}).text.count("<polyline") == ROWS
    assert again < counted.rows <= 2 * bound, "the next page costs what the first one did"

    before = counted.rows
    assert reader.get("/", params={"q": "nothing"}).text.count("<polyline") == 0
    assert counted.rows == before, "no row, no price"


def test_a_page_is_as_large_as_that_of_a_small_market(reader: TestClient, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[-1], ROWS)
    small = app_for(lake, poll_seconds=60)
    small.state.publications.refresh()
    of_small, of_wide = signed_in(small).get("/").text, reader.get("/").text
    lines = "".join(part.partition("</svg>")[0] for part in of_wide.split('<svg class="spark"')[1:])
    assert len(of_wide) - len(lines) < 1.1 * len(of_small)


def test_the_symbols_without_a_prediction_come_page_by_page(reader: TestClient) -> None:
    first = reader.get("/unpredicted").text
    assert first.count('class="rowlink"') == ROWS
    assert f"1 to {ROWS} of 1,200" in first
    last = reader.get("/unpredicted", params={"page": 24}).text
    assert last.count('class="rowlink"') == ROWS
    assert "U1199" in last
    assert "U1199" not in first


def test_all_predictions_can_be_taken_along_at_once(reader: TestClient) -> None:
    page = reader.get("/").text
    address = page.partition('title="All predictions of this session"')[0].rpartition('href="')[2].partition('"')[0]
    assert reader.get(address.replace("&amp;", "&")).text.count("\n") == SYMBOLS + 1


def test_confidence_is_asked_for_and_written_in_per_cent(reader: TestClient) -> None:
    page = reader.get("/", params={"confidence": "99,5"}).text
    assert "1 to 26 of 26" in page
    assert ">100 %</td>" in page
    for wrong in ("0.x", "101", "-1"):
        refused = reader.get("/", params={"confidence": wrong}).text
        assert "a number from 0 to 100" in refused
        assert f"of {SYMBOLS:,}" in refused
