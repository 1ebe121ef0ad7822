"""The files source: any vendor's layout comes out the same, and every kind of bad input says what to do."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.market.source_settings import FilesSource
from stock_pipeline.sources import Source, SourceData, build

ISO = "%Y-%m-%d"


@pytest.fixture(scope="module")
def apple(sample_dir: Path) -> pl.DataFrame:
    """Real bars of summer 2014, with a split and a dividend."""
    rows = pl.read_csv(sample_dir / "bars" / "AAPL.csv", try_parse_dates=True)
    return rows.filter(pl.col("session").is_between(date(2014, 5, 1), date(2014, 8, 29)))


def load(path: Path | str, calendar: str = "XNYS", **settings: Any) -> SourceData:
    return build(FilesSource(path=str(path), **settings), calendar=calendar).fetch(None, None)


def as_text(rows: pl.DataFrame, date_format: str = ISO) -> pl.DataFrame:
    return rows.with_columns(pl.col("session").dt.strftime(date_format))


@pytest.fixture(scope="module")
def expected(apple: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    file = tmp_path_factory.mktemp("expected") / "bars.parquet"
    apple.write_parquet(file)
    return load(file, prices="raw_with_adj_close", currency="USD").bars


@pytest.mark.requirement("R3.1", "R7.1")
def test_the_protocol_and_the_schema(apple: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path) -> None:
    assert isinstance(build(FilesSource(path=str(tmp_path))), Source)
    assert expected.schema == BAR_SCHEMA
    assert expected["close"].equals(apple["close"])
    assert expected["adj_factor"].n_unique() == 4  # dividend, split, dividend
    assert expected["known_at"][0] == datetime(2014, 5, 1, 20, 0, tzinfo=UTC)


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize(
    "layout",
    ["names", "semicolons", "tabs", "filename", "gz", "timestamps", "integers", "utc", "midnights", "zoned", "offsets"],
)
def test_every_layout_comes_out_the_same(
    layout: str, apple: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"prices": "raw_with_adj_close", "currency": "USD"}
    if layout == "names":
        as_text(apple, "%d.%m.%Y").rename(
            {"symbol": "Ticker", "session": "Date", "close": "Last", "adj_close": "Adj Close", "volume": "Vol"}
        ).write_csv(tmp_path / "a.csv")
        settings["columns"] = {"close": "Last"}
    elif layout == "semicolons":
        text = as_text(apple, "%d/%m/%Y").with_columns(
            pl.col(c).cast(pl.String).str.replace(".", ",", literal=True)
            for c in ("open", "high", "low", "close", "adj_close")
        )
        text.write_csv(tmp_path / "a.csv", separator=";")
        settings |= {"decimal_comma": True}
    elif layout == "tabs":
        as_text(apple, "%m/%d/%Y").write_csv(tmp_path / "a.tsv", separator="\t")
    elif layout == "filename":
        apple.drop("symbol").head(30).write_csv(tmp_path / "AAPL.csv")
        apple.drop("symbol").slice(30).write_parquet(tmp_path / "AAPL.parquet")
        settings["symbol_from"] = "filename"
    elif layout == "gz":
        import gzip

        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(apple.write_csv().encode()))
    elif layout == "timestamps":
        stamps = apple.with_columns(pl.col("session").cast(pl.Datetime("us")) + pl.duration(hours=16))
        stamps.rename({"session": "timestamp"}).write_parquet(tmp_path / "a.parquet")
    elif layout == "midnights":
        apple.with_columns(pl.col("session").dt.strftime("%Y-%m-%d 00:00:00+00:00")).write_csv(tmp_path / "a.csv")
    elif layout == "zoned":
        stamps = apple.with_columns(pl.col("session").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"))
        stamps.write_parquet(tmp_path / "a.parquet")
    elif layout == "offsets":  # midnight in New York, as Yahoo's exports have it
        apple.with_columns(pl.col("session").dt.strftime("%Y-%m-%d 00:00:00-04:00")).write_csv(tmp_path / "a.csv")
    elif layout == "integers":
        number = pl.col("session").dt.strftime("%Y%m%d").cast(pl.Int64)
        apple.with_columns(number).rename({"session": "trade_date"}).write_parquet(tmp_path / "a.parquet")
    elif layout == "utc":
        # 21:30 UTC, that is the next day in Tokyo but the same one in New York
        apple.with_columns(pl.col("session").dt.strftime("%Y-%m-%dT21:30:00Z")).write_csv(tmp_path / "a.csv")
    assert load(tmp_path, **settings).bars.equals(expected)


def test_many_files_unsorted_with_leading_zeros(apple: pl.DataFrame, tmp_path: Path) -> None:
    for code in ("000002", "000001"):
        shuffled = apple.sample(fraction=1.0, shuffle=True, seed=1).with_columns(pl.lit(code).alias("symbol"))
        shuffled.write_csv(tmp_path / f"{code}.csv")
    bars = load(tmp_path, calendar="XSHE").bars
    assert bars.select("symbol", "session").equals(bars.select("symbol", "session").sort("symbol", "session"))
    assert bars["symbol"].unique(maintain_order=True).to_list() == ["000001", "000002"]
    assert bars["currency"].is_null().all()


def test_range_is_cut_after_the_factors_were_made(apple: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path) -> None:
    apple.write_csv(tmp_path / "a.csv")
    source = build(FilesSource(path=str(tmp_path), prices="raw_with_adj_close", currency="USD"))
    part = source.fetch(date(2014, 6, 9), date(2014, 8, 7)).bars
    assert part.equals(expected.filter(pl.col("session").is_between(date(2014, 6, 9), date(2014, 8, 7))))


@pytest.mark.requirement("R3.1")
def test_events_from_a_file_or_in_the_rows(apple: pl.DataFrame, sample_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    apple.drop("adj_close").write_csv(tmp_path / "bars" / "a.csv")
    beside = load(
        tmp_path / "bars",
        prices="raw_with_events",
        dividends="price_relative",
        events=str(sample_dir / "events.csv"),
    )
    by_adj_close = load_adj(apple, tmp_path / "adj.parquet")
    assert (beside.bars["adj_factor"] / by_adj_close["adj_factor"] - 1).abs().max() < 1e-5
    events = pl.read_csv(sample_dir / "events.csv", try_parse_dates=True)
    inside = apple.join(events, on=["symbol", "session"], how="left").with_columns(
        pl.col("split_ratio").fill_null(0.0).alias("Stock Splits"), pl.col("dividend").alias("Dividends")
    )
    inside.drop("split_ratio", "dividend").write_csv(tmp_path / "in.csv")
    same = load(tmp_path / "in.csv", prices="raw_with_events", dividends="price_relative")
    assert same.bars["adj_factor"].equals(beside.bars["adj_factor"])
    assert same.events is not None
    assert same.events["session"].to_list() == [date(2014, 5, 8), date(2014, 6, 9), date(2014, 8, 7)]


def load_adj(rows: pl.DataFrame, file: Path) -> pl.DataFrame:
    rows.write_parquet(file)
    return load(file, prices="raw_with_adj_close").bars


def test_own_known_at_and_currency_are_kept(apple: pl.DataFrame, tmp_path: Path) -> None:
    learnt = datetime(2015, 1, 1, 12, 0, tzinfo=UTC)
    rows = apple.with_columns(pl.lit("2015-01-01T13:00:00+01:00").alias("known_at"), pl.lit("EUR").alias("currency"))
    rows.write_csv(tmp_path / "a.csv")
    bars = load(tmp_path, currency="USD").bars
    assert bars["known_at"].unique().to_list() == [learnt]
    assert bars["currency"].unique().to_list() == ["EUR"]


def test_rows_outside_the_calendar_pass_on_to_validation(apple: pl.DataFrame, tmp_path: Path) -> None:
    odd = apple.head(3).with_columns(pl.Series("session", [date(2014, 7, 4), date(2014, 7, 5), date(2999, 1, 4)]))
    odd.write_csv(tmp_path / "a.csv")
    bars = load(tmp_path).bars
    assert bars.height == 3
    assert bars["known_at"].is_not_null().all()


@pytest.mark.requirement("R7.1")
def test_nan_inf_negative_zero_and_duplicates_pass_on_to_validation(apple: pl.DataFrame, tmp_path: Path) -> None:
    values = ["NaN", "inf", "-inf", "-5.0", "0", "", "NA"]
    rows = apple.head(7).with_columns(pl.Series("close", values))
    pl.concat([rows, rows.tail(1)]).write_csv(tmp_path / "a.csv")
    for prices in ("raw", "raw_with_adj_close"):
        bars = load(tmp_path, prices=prices).bars
        assert bars.height == 8
        assert bars["close"].is_nan().sum() == 1
        assert bars["close"].is_infinite().sum() == 2
        assert bars["close"].null_count() == 3
        assert bars["adj_factor"].is_finite().all()


def test_missing_folder_and_no_match(apple: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*nowhere.*correct source.path"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"no file in .* matches.*notes.docx"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"\*\.parquet"):
        load(tmp_path, glob="*.parquet")


def test_empty_files(apple: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        load(tmp_path)
    apple.head(0).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="no file of the source has any rows"):
        load(tmp_path)
    apple.write_csv(tmp_path / "b.csv")
    data = load(tmp_path)
    assert data.bars.height == apple.height
    assert "a.csv has a header but no rows" in data.problems[0]


def test_wrong_columns_name_what_was_found_and_the_nearest(apple: pl.DataFrame, tmp_path: Path) -> None:
    apple.rename({"close": "closing_price"}).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    message = str(raised.value)
    assert "no column for 'close'" in message
    assert "symbol, session, open, high, low, closing_price" in message
    assert "columns: {close: closing_price}" in message
    with pytest.raises(DataError, match="no column for 'session': 'dat'"):
        load(tmp_path, columns={"session": "dat", "close": "closing_price"})
    with pytest.raises(DataError, match="no column for 'factor'"):
        load(tmp_path, columns={"close": "closing_price"}, prices="raw_with_factors")
    with pytest.raises(DataError, match="neither the rows nor an events file"):
        load(tmp_path, columns={"close": "closing_price"}, prices="raw_with_events")


def test_two_columns_of_one_name(apple: pl.DataFrame, tmp_path: Path) -> None:
    text = apple.write_csv()
    (tmp_path / "a.csv").write_text(text.replace("adj_close", "close", 1))
    with pytest.raises(DataError, match=r"two columns that may be 'close': \['close', 'close'\]"):
        load(tmp_path)
    (tmp_path / "a.csv").write_text(text.replace("adj_close", "Close", 1))
    with pytest.raises(DataError, match=r"\['close', 'Close'\]"):
        load(tmp_path)
    assert load(tmp_path, columns={"close": "close"}).bars["close"].equals(apple["close"])


def test_counts_since_1970(apple: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path) -> None:
    opening = pl.col("session").cast(pl.Datetime("ms")).dt.replace_time_zone("America/New_York").dt.offset_by("570m")
    apple.with_columns(opening.dt.epoch("ms").alias("session")).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    assert load(tmp_path, date_format="epoch_ms").bars["session"].equals(expected["session"])
    (tmp_path / "a.parquet").unlink()
    apple.with_columns(opening.dt.epoch("s").alias("session")).write_csv(tmp_path / "a.csv")
    assert load(tmp_path, date_format="epoch_s").bars["session"].equals(expected["session"])


def test_unparsable_dates_show_value_file_and_row(apple: pl.DataFrame, tmp_path: Path) -> None:
    text = as_text(apple)
    days = text["session"].to_list()
    days[4] = "soon"
    text.with_columns(pl.Series("session", days)).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"the date in .*a\.csv, row 6 cannot be read: 'soon'"):
        load(tmp_path)
    days[4] = None  # type: ignore[call-overload]
    text.with_columns(pl.Series("session", days)).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"row 6 is missing"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"row 2 cannot be read.*%d-%m-%Y"):
        load(tmp_path, date_format="%d-%m-%Y")


@pytest.mark.parametrize("mark", ["/", "-", "."])
def test_day_and_month_are_never_guessed(
    mark: str, apple: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path
) -> None:
    day_first, month_first = f"%d{mark}%m{mark}%Y", f"%m{mark}%d{mark}%Y"
    unclear = apple.filter(pl.col("session").dt.day() <= 12)
    as_text(unclear, day_first).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"day/month/year or month/day/year.*state date_format"):
        load(tmp_path)
    stated = load(tmp_path, date_format=day_first).bars
    assert stated["session"].equals(unclear["session"])
    # another file of the same vendor decides
    as_text(apple.filter(pl.col("session").dt.day() > 12), day_first).write_csv(tmp_path / "b.csv")
    assert load(tmp_path).bars["session"].equals(expected["session"])
    as_text(apple, month_first).write_csv(tmp_path / "b.csv")
    (tmp_path / "a.csv").unlink()
    assert load(tmp_path).bars["session"].equals(expected["session"])
    as_text(apple, day_first).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="only possible as day/month, others only as month/day"):
        load(tmp_path)


def test_prices_that_are_no_numbers(apple: pl.DataFrame, tmp_path: Path) -> None:
    closes = apple["close"].cast(pl.String).to_list()
    closes[2] = "1,234.5"
    apple.with_columns(pl.Series("close", closes)).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"'close' in .*a\.csv, row 4 is not a number: '1,234.5'.*thousands"):
        load(tmp_path)
    closes[2] = "halted"
    apple.with_columns(pl.Series("close", closes)).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="null_values"):
        load(tmp_path)
    assert load(tmp_path, null_values=("halted",)).bars["close"].null_count() == 1


def test_missing_symbols(apple: pl.DataFrame, tmp_path: Path) -> None:
    symbols = apple["symbol"].to_list()
    symbols[1] = " "
    apple.with_columns(pl.Series("symbol", symbols)).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"the symbol in .*row 3 is missing"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_corrupt_parquet(damage: str, apple: pl.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    apple.write_parquet(file)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-6] ^= 0xFF
        file.write_bytes(content)
    else:
        file.write_text("symbol,close\nAAPL,1\n")
    with pytest.raises(DataError, match=r"Parquet file is damaged.*a\.parquet"):
        load(tmp_path)


def test_encodings(apple: pl.DataFrame, tmp_path: Path) -> None:
    names = {"symbol": "代码", "session": "日期", "close": "收盘"}
    csv = apple.rename(names).write_csv()
    (tmp_path / "a.csv").write_bytes(csv.encode("gbk"))
    with pytest.raises(DataError, match="encoding"):
        load(tmp_path, columns=names)
    assert load(tmp_path, columns=names, encoding="gbk").bars["close"].equals(apple["close"])
    (tmp_path / "a.csv").write_bytes(csv.encode("utf-8-sig"))
    assert load(tmp_path, columns=names).bars["close"].equals(apple["close"])


def test_membership_and_benchmark_files(apple: pl.DataFrame, sample_dir: Path, tmp_path: Path) -> None:
    apple.write_csv(tmp_path / "a.csv")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "members.csv").write_text("ticker,from,to\nAAPL,2014-05-01,2014-06-30\nAAPL,2014-08-01,\n")
    (beside / "index.csv").write_text(
        "symbol,date,close\nSPX,2014-05-02,1881.14\nSPX,2014-05-01,1883.68\nVIX,2014-05-01,13.2\n"
    )
    data = load(
        tmp_path,
        membership=str(beside / "members.csv"),
        benchmark={"path": str(beside / "index.csv"), "symbol": "SPX"},
    )
    assert data.membership is not None
    assert data.membership["end"].to_list() == [date(2014, 6, 30), None]
    assert data.benchmark is not None
    assert data.benchmark.rows() == [(date(2014, 5, 1), 1883.68), (date(2014, 5, 2), 1881.14)]
    with pytest.raises(DataError, match=r"several symbols: \['SPX', 'VIX'\]"):
        load(tmp_path, benchmark=str(beside / "index.csv"))
    with pytest.raises(DataError, match="the file does not exist"):
        load(tmp_path, membership=str(beside / "none.csv"))
    (beside / "members.csv").write_text("ticker,from,to\nAAPL,2014-05-01,2013-06-30\n")
    with pytest.raises(DataError, match="span of the membership table is not possible"):
        load(tmp_path, membership=str(beside / "members.csv"))


@pytest.mark.requirement("R3.1")
def test_a_million_rows_load_whole(market_data: Path) -> None:
    data = load(market_data / "in_nse250.parquet", calendar="XNSE", prices="adjusted", currency="INR")
    assert data.bars.height == 974_765
