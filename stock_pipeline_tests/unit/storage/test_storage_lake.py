"""The lake's tables: what is written is what is read, versions, ranges, names, schemas, queries."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_pipeline.core.errors import DataError, IntegrityError, NotFoundError
from stock_pipeline.core.market.bars import BAR_SCHEMA, QUARANTINED_SCHEMA
from stock_pipeline.storage.lake import Lake

D = date


def bars(*sessions: date, symbols: tuple[str, ...] = ("B", "A"), close: float = 1.0) -> pl.DataFrame:
    rows = [{"symbol": symbol, "session": session, "close": close} for session in sessions for symbol in symbols]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "session": pl.Date, "close": pl.Float64})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.mark.requirement("R3.1")
def test_a_bar_table_comes_back_as_it_was(lake: Lake) -> None:
    frame = pl.DataFrame(
        {
            "symbol": ["B", "A", "A"],
            "session": [D(2020, 1, 2), D(2021, 1, 4), D(2020, 1, 2)],
            "close": [1.5, None, 0.1 + 0.2],
            "known_at": [datetime(2020, 1, 2, 22, 0, 0, 123456, UTC)] * 3,
            "rules": [["a", "b"], [], None],
        },
        schema_overrides={"known_at": pl.Datetime("us", "UTC"), "rules": pl.List(pl.String)},
    )
    frame = frame.with_columns(
        pl.lit(None, dtype=dtype).alias(n) for n, dtype in BAR_SCHEMA.items() if n not in frame.columns
    )
    frame = frame.with_columns(pl.lit("").alias("reason")).select(list(QUARANTINED_SCHEMA))
    assert lake.write_sessions("market/quarantined_bars", frame, start=D(2020, 1, 1), end=D(2021, 12, 31)) == 0
    back = lake.read("market/quarantined_bars")
    assert back.schema == pl.Schema(QUARANTINED_SCHEMA)
    assert_frame_equal(back, frame.sort("symbol", "session"))


def test_a_range_is_replaced_and_the_rest_stays(lake: Lake) -> None:
    lake.write_sessions(
        "t", bars(D(2019, 12, 31), D(2020, 1, 2), D(2020, 1, 3)), start=D(2019, 1, 1), end=D(2020, 12, 31)
    )
    lake.write_sessions("t", bars(D(2020, 1, 2), symbols=("C",), close=9), start=D(2020, 1, 1), end=D(2020, 1, 2))
    assert lake.read("t").rows() == [
        ("A", D(2019, 12, 31), 1.0),
        ("A", D(2020, 1, 3), 1.0),
        ("B", D(2019, 12, 31), 1.0),
        ("B", D(2020, 1, 3), 1.0),
        ("C", D(2020, 1, 2), 9.0),
    ]
    lake.write_sessions("t", bars(), start=D(2019, 1, 1), end=D(2020, 1, 2))
    assert lake.sessions("t") == [D(2020, 1, 3)]


def test_a_write_may_be_repeated_and_equal_content_makes_no_version(lake: Lake) -> None:
    day = D(2020, 1, 2)
    frame = bars(day)
    assert lake.write_sessions("t", frame, start=day, end=day) == 0
    assert lake.write_sessions("t", frame.reverse(), start=day, end=day) == 0
    assert lake.write_sessions("t", frame, start=day, end=day + timedelta(days=5)) == 0
    assert lake.write_sessions("t", frame, start=day, end=day, skip_unchanged=False) == 1
    assert lake.write_sessions("t", bars(day, close=2.0), start=day, end=day) == 2
    assert lake.write_sessions("t", bars(), start=D(2022, 1, 1), end=D(2022, 1, 1)) == 2
    assert lake.read("t").height == 2
    assert lake.replace("r", frame) == 0
    assert lake.replace("r", frame.reverse()) == 0
    assert lake.replace("r", frame.with_columns(pl.col("close").cast(pl.Float32))) == 1


def test_reading_selects_sessions_symbols_columns_and_versions(lake: Lake) -> None:
    days = [D(2019, 12, 30) + timedelta(days=n) for n in range(6)]
    lake.write_sessions("t", bars(*days), start=days[0], end=days[-1])
    lake.write_sessions("t", bars(days[5], close=2.0), start=days[5], end=days[5])
    chosen = lake.read("t", start=days[1], end=days[3], symbols=["A"], columns=["close", "session"])
    assert chosen.columns == ["close", "session"]
    assert chosen["session"].to_list() == days[1:4]
    assert lake.read("t", symbols=[]).is_empty()
    assert lake.read("t", columns=["close"]).columns == ["close"]
    assert set(lake.read("t", start=days[5], version=0)["close"]) == {1.0}
    assert set(lake.read("t", start=days[5])["close"]) == {2.0}
    assert lake.scan("t", columns=["close"]).collect().height == 12
    assert (lake.last_session("t"), lake.count("t"), lake.sessions("t")) == (days[5], 12, days)
    with pytest.raises(DataError, match=r"no such columns.*colour"):
        lake.read("t", columns=["colour"])
    with pytest.raises(NotFoundError, match="no version 7"):
        lake.read("t", version=7)
    with pytest.raises(NotFoundError, match="no table nope"):
        lake.read("nope")


def test_tables_without_sessions(lake: Lake) -> None:
    assert lake.replace("summary", pl.DataFrame({"year": [2021, 2020], "value": [1.0, 2.0]})) == 0
    assert lake.read("summary").rows() == [(2021, 1.0), (2020, 2.0)]
    assert lake.replace("summary", pl.DataFrame({"name": ["x"]})) == 1
    assert lake.read("summary").rows() == [("x",)]
    assert lake.read("summary", version=0).columns == ["year", "value"]
    with pytest.raises(DataError, match="no session column"):
        lake.read("summary", start=D(2020, 1, 1))
    with pytest.raises(DataError, match="no session column"):
        lake.last_session("summary")
    assert lake.replace("summary", bars(D(2020, 1, 2))) == 2
    assert lake.read("summary").columns == ["symbol", "session", "close"]


def test_snapshots_belong_to_one_moment(lake: Lake) -> None:
    day = D(2020, 1, 2)
    lake.write_sessions("market/a", bars(day), start=day, end=day)
    lake.replace("b", bars(day))
    snapshot = lake.snapshot()
    lake.write_sessions("market/a", bars(day, close=5.0), start=day, end=day)
    assert snapshot.versions == {"b": 0, "market/a": 0}
    assert lake.versions(["market/a", "absent"]) == {"market/a": 1}
    assert set(snapshot.read("market/a")["close"]) == {1.0}
    assert snapshot.sql("SELECT max(close) FROM market.a").item() == 1.0
    assert lake.sql("SELECT max(close) FROM market.a").item() == 5.0
    with pytest.raises(NotFoundError):
        snapshot.read("absent")
    assert lake.tables() == ["b", "market/a"]
    assert (lake.exists("b"), lake.exists("c"), lake.version("c"), lake.last_session("c")) == (True, False, None, None)


def test_only_new_rows_are_appended(lake: Lake) -> None:
    first, second = D(2020, 12, 31), D(2021, 1, 4)
    assert lake.append_new("t", bars(first)) == 0
    assert lake.append_new("t", bars(first, close=99.0)) == 0
    assert lake.append_new("t", bars(first, second, close=99.0)) == 1
    assert lake.read("t")["close"].to_list() == [1.0, 99.0, 1.0, 99.0]
    other = pl.DataFrame({"prediction_id": ["x", None], "outcome": [1.0, 2.0]})
    lake.append_new("outcomes", other, keys=["prediction_id"])
    assert lake.append_new("outcomes", other, keys=["prediction_id"]) == 0
    with pytest.raises(DataError, match="repeat their keys"):
        lake.append_new("t", pl.concat([bars(first), bars(first)]))
    with pytest.raises(DataError, match="lacks key columns"):
        lake.append_new("t", bars(first), keys=["colour"])


def test_a_schema_changes_only_on_request(lake: Lake) -> None:
    day = D(2020, 1, 2)
    lake.write_sessions("t", bars(day), start=day, end=day)
    later = day + timedelta(days=1)
    wider = bars(later).with_columns(volume=pl.lit(5.0))
    with pytest.raises(DataError, match="volume"):
        lake.write_sessions("t", wider, start=later, end=later)
    with pytest.raises(DataError, match=r"absent.*close"):
        lake.write_sessions("t", bars(later).drop("close"), start=later, end=later)
    with pytest.raises(DataError, match=r"another type.*Int64.*Float64"):
        lake.write_sessions(
            "t", bars(later).with_columns(pl.lit(1, dtype=pl.Int64).alias("close")), start=later, end=later
        )
    assert lake.version("t") == 0
    lake.write_sessions("t", wider, start=later, end=later, evolve=True)
    assert lake.read("t", symbols=["A"])["volume"].to_list() == [None, 5.0]
    lake.write_sessions("t", bars(later), start=later, end=later, evolve=True)
    assert lake.read("t")["volume"].null_count() == 4
    untyped = bars(later).with_columns(volume=pl.lit(None))
    lake.write_sessions("t", untyped.select("volume", "close", "session", "symbol"), start=later, end=later)
    assert lake.schema("t")["volume"] == pl.Float64


@pytest.mark.parametrize(
    "name",
    ["", "/", "../x", "a/../b", "/etc/x", "a//b", "a/", "a b", "a.b", "s3://x", "a\\b", "a\n", "ä", "x" * 101, None],
)
def test_names_that_could_leave_the_folder_are_refused(lake: Lake, name) -> None:
    for action in (lake.read, lake.exists, lambda table: lake.replace(table, bars(D(2020, 1, 2)))):
        with pytest.raises(DataError, match="not a table name"):
            action(name)
    assert not Path(lake.root).exists()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (bars(D(2020, 1, 2)).with_columns(pl.lit(None, dtype=pl.String).alias("symbol")), "2 rows have no symbol"),
        (bars(D(2020, 1, 2)).with_columns(pl.lit(None, dtype=pl.Date).alias("session")), "no session"),
        (bars(D(2020, 1, 2)).with_columns(session=pl.lit("2020-01-02")), "not a date"),
        (bars(D(2020, 1, 2)).with_columns(year=pl.lit(1)), "named 'year'"),
        (bars(D(2020, 1, 2)).rename({"close": "close; drop"}), "not a column name"),
        (bars(D(2020, 1, 2)).with_columns(Close=pl.lit(1)), "differ only by case"),
        (bars(D(2020, 1, 2)).with_columns(x=pl.lit(None)), "without a type"),
        (bars(D(2020, 1, 2)).with_columns(x=pl.duration(days=1)), "cannot hold"),
        (bars(D(2020, 1, 9)), "outside the range"),
    ],
)
def test_frames_that_cannot_be_stored_are_refused(lake: Lake, frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lake.write_sessions("t", frame, start=D(2020, 1, 1), end=D(2020, 1, 3))
    assert not lake.exists("t")


def test_types_that_delta_does_not_know_become_their_nearest(lake: Lake) -> None:
    frame = pl.DataFrame(
        {"a": ["x"], "b": [200], "c": [datetime(2020, 1, 1, tzinfo=UTC)]},
        schema={"a": pl.Categorical, "b": pl.UInt8, "c": pl.Datetime("ns", "UTC")},
    )
    lake.replace("t", frame)
    assert lake.read("t").schema == {"a": pl.String, "b": pl.Int16, "c": pl.Datetime("us", "UTC")}


def test_rows_with_equal_keys_have_one_order(lake: Lake) -> None:
    frame = pl.DataFrame({"symbol": ["A"] * 4, "session": [D(2020, 1, 2)] * 4, "rule": ["z", "a", "m", "b"]})
    lake.append_new("findings", frame[:2], keys=["symbol", "session", "rule"])
    lake.append_new("findings", frame[2:], keys=["symbol", "session", "rule"])
    assert lake.read("findings")["rule"].to_list() == ["a", "b", "m", "z"]


def test_a_table_cannot_hide_inside_another(lake: Lake) -> None:
    lake.replace("backtests/results", bars(D(2020, 1, 2)))
    for name in ("backtests/results/sma", "backtests"):
        with pytest.raises(DataError, match="share its folder"):
            lake.replace(name, bars(D(2020, 1, 2)))


def test_compacting_keeps_the_content_and_vacuum_keeps_what_it_is_told(lake: Lake) -> None:
    days = [D(2020, 1, 1) + timedelta(days=n) for n in range(8)]
    for number, day in enumerate(days):
        lake.write_sessions("t", bars(day, close=float(number)), start=day, end=day)
    before = lake.read("t")
    assert len(list(Path(lake.uri("t")).rglob("*.parquet"))) == 8
    lake.compact("t")
    assert_frame_equal(lake.read("t"), before)
    assert lake.vacuum("t") == 0  # nothing is old enough
    assert_frame_equal(lake.read("t", version=3), before.filter(pl.col("session") <= days[3]))
    assert lake.vacuum("t", retention_days=0, keep_versions=[3]) == 4
    assert_frame_equal(lake.read("t"), before)
    assert lake.read("t", version=3).height == 8
    with pytest.raises(IntegrityError, match="missing or damaged"):
        lake.read("t", version=6)


def test_metadata_is_kept_with_the_commit(lake: Lake) -> None:
    lake.replace("t", bars(D(2020, 1, 2)), metadata={"run_id": "r-1"})
    assert lake.history("t", 1)[0]["run_id"] == "r-1"


def test_sql_reads_the_named_tables_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    day = D(2020, 1, 2)
    lake.write_sessions("market/raw_bars", bars(day), start=day, end=day)
    lake.replace("flat", pl.DataFrame({"x": [1, 2]}))
    joined = lake.sql(
        "WITH c AS (SELECT * FROM market.raw_bars) "
        'SELECT c.*, f.x FROM c JOIN flat f ON f.x = ? JOIN "market/raw_bars" r '
        "USING (symbol, session) ORDER BY symbol DESC",
        [2],
    )
    assert joined.columns == ["symbol", "session", "close", "x"]
    assert joined.rows() == [("B", day, 1.0, 2), ("A", day, 1.0, 2)]
    assert lake.sql("SELECT 1 AS one").item() == 1
    for query in (
        "SELECT 1; SELECT 2",
        "DROP TABLE flat",
        "INSERT INTO flat VALUES (1)",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "SELECT",
        "ATTACH 'x.db'",
        f"SELECT * FROM read_csv('{secret}')",
        "SELECT x + FROM flat",
        "SELECT nope FROM flat",
    ):
        with pytest.raises(DataError):
            lake.sql(query)
    for query in (
        f"SELECT * FROM '{secret}'",
        "SELECT * FROM nope",
        'SELECT * FROM "market/nope"',
        "SELECT * FROM joined",
    ):
        with pytest.raises((NotFoundError, DataError)):
            lake.sql(query)
