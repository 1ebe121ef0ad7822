"""`init` looks at the files of usual vendors and writes a configuration that works at once."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.sources import build
from stock_pipeline_tests.commands import Said, command
from stock_pipeline_tests.conftest import SAMPLE

SYMBOLS = ("AAPL", "AMZN", "NFLX")


def real(symbol: str, since: str = "2018-01-01") -> pl.DataFrame:
    frame = pl.read_csv(SAMPLE / "bars" / f"{symbol}.csv")
    return frame.filter(pl.col("session") >= since, pl.col("session") < "2022-01-01")


def begin(folder: Path, prices: Path, *options: str) -> tuple[Said, Settings, pl.DataFrame]:
    """Run `init` and `doctor`; gives what init said, the settings and the bars that they read."""
    config = folder / "mine.yaml"
    said = command("init", prices, "-o", config, *options)
    assert said.code == 0, said.all
    settings = load_settings(config, environment={})
    checked = command("-c", config, "doctor")
    assert checked.code == 0, checked.all
    return said, settings, build(settings.source, calendar=settings.market.calendar).fetch(None, None).bars


@pytest.mark.requirement("P8", "R3.1")
def test_yahoo_files(tmp_path):
    prices = tmp_path / "yahoo"
    prices.mkdir()
    for symbol in SYMBOLS:
        real(symbol).select(
            Date="session", Open="open", High="high", Low="low", Close="close",
            **{"Adj Close": pl.col("adj_close")}, Volume="volume",
        ).write_csv(prices / f"{symbol}.csv")  # fmt: skip
    said, settings, bars = begin(tmp_path, prices)
    assert settings.source.prices == "raw_with_adj_close"
    assert settings.source.symbol_from == "filename"
    assert settings.market.calendar == "XNYS"
    assert (settings.market.history.first, settings.market.history.last) == (2018, 2021)
    assert set(bars["symbol"]) == set(SYMBOLS)
    assert bars.filter(pl.col("symbol") == "AAPL")["adj_factor"].n_unique() > 3, "dividends are known"
    assert "the file names are the symbols" in said.all


@pytest.mark.requirement("P8", "R3.1")
def test_stooq_files_with_marks_in_the_header(tmp_path):
    prices = tmp_path / "stooq"
    prices.mkdir()
    for symbol in SYMBOLS:
        real(symbol).select(
            pl.col("symbol").alias("<TICKER>"),
            pl.lit("D").alias("<PER>"),
            pl.col("session").str.replace_all("-", "").alias("<DATE>"),
            pl.lit("000000").alias("<TIME>"),
            *(pl.col(name).alias(f"<{name.upper()}>") for name in ("open", "high", "low", "close")),
            pl.col("volume").alias("<VOL>"),
            pl.lit(0).alias("<OPENINT>"),
        ).write_csv(prices / f"{symbol.lower()}.us.txt")
    _, settings, bars = begin(tmp_path, prices)
    assert settings.source.columns["session"] == "<DATE>"
    assert settings.source.prices == "adjusted"
    assert set(bars["symbol"]) == set(SYMBOLS)
    assert str(bars["session"].max()) == "2021-12-31"


@pytest.mark.requirement("P8", "R3.1")
def test_one_parquet_file_of_another_exchange(tmp_path):
    from stock_pipeline.core.market.calendar import SessionCalendar

    days = SessionCalendar("XTKS").sessions(date(2015, 1, 1), date(2020, 12, 31))
    frame = real("AAPL", "2000").head(len(days)).with_columns(date=pl.Series(days[: real("AAPL", "2000").height]))
    frame.select(pl.lit("7203").alias("ticker"), "date", "open", "high", "low", "close", "volume").write_parquet(
        tmp_path / "prices.parquet"
    )
    said, settings, bars = begin(tmp_path, tmp_path / "prices.parquet")
    assert (settings.market.calendar, settings.market.currency) == ("XTKS", "JPY")
    assert bars["symbol"].unique().to_list() == ["7203"]
    assert "with one symbol nothing can be ranked" in said.all


def test_a_market_that_never_closes(tmp_path):
    days = [date(2019, 1, 1) + timedelta(day) for day in range(800)]
    pl.DataFrame({"coin": ["BTC"] * 800, "when": days, "price": [100.0 + day for day in range(800)]}).with_columns(
        symbol="coin"
    ).drop("coin").write_csv(tmp_path / "coins.csv")
    _, settings, bars = begin(tmp_path, tmp_path / "coins.csv")
    assert settings.market.calendar == "24/7"
    assert settings.source.columns == {"session": "when", "close": "price"}
    assert settings.models.train.folds == 2, "lengths fit a short history"
    assert bars.height == 800


def test_what_is_told_wins_over_guesses(tmp_path):
    real("AAPL").write_csv(tmp_path / "AAPL.csv")
    _, settings, _ = begin(
        tmp_path, tmp_path / "AAPL.csv", "--calendar", "XNYS", "--currency", "EUR", "--prices", "raw",
        "--first", "2010", "--name", "other",
    )  # fmt: skip
    assert (settings.market.currency, settings.source.prices, settings.market.history.first) == ("EUR", "raw", 2010)
    assert settings.home == tmp_path / "data" / "other"


def test_mistakes(tmp_path):
    assert "no such folder" in command("init", tmp_path / "nowhere").all
    (tmp_path / "empty").mkdir()
    said = command("init", tmp_path / "empty", "-o", tmp_path / "a.yaml")
    assert said.code == 1
    assert "no file in" in said.all
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    said = command("init", tmp_path / "bad.csv", "-o", tmp_path / "b.yaml")
    assert said.code == 1
    assert "is written, but the prices cannot be read with it yet" in said.all
    real("AAPL").write_csv(tmp_path / "AAPL.csv")
    said = command("init", tmp_path / "AAPL.csv", "-o", tmp_path / "b.yaml")
    assert "exists already" in said.all
    said = command("init", tmp_path / "AAPL.csv", "-o", tmp_path / "b.yaml", "--force", "--calendar", "XNYX")
    assert said.code == 1
    assert "market.calendar: unknown exchange calendar: 'XNYX'" in said.all
