"""Bad prices by YAML alone: each mistake is one clear message, or entries in the quarantine; never a wrong number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.config.launches import range_tags
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import Runner
from stock_pipeline.storage.database import open_database
from stock_pipeline_tests.commands import command, small_market
from stock_pipeline_tests.services import free_port, redis

MARKET = [
    f"market/{name}"
    for name in (
        "raw_bars", "benchmark", "membership", "validated_bars", "quarantined_bars", "quality_findings",
        "quality_scores",
    )
]  # fmt: skip


def rewrite(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the cells of every row, header included."""
    rows = [change(line.split(",")) for line in file.read_text().splitlines()]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")


def header(file: Path, old: str, new: str) -> None:
    first, _, rest = file.read_text().partition("\n")
    file.write_text(first.replace(old, new) + "\n" + rest)


def dates(file: Path, form: str) -> None:
    """Write dates another way: ``dmy`` or ``mdy``; only days up to the 12th where ``ambiguous``."""
    lines = file.read_text().splitlines()
    kept = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        year, month, day = cells[1].split("-")
        if form == "ambiguous" and int(day) > 12:
            continue
        cells[1] = f"{month}/{day}/{year}" if form == "mdy" else f"{day}/{month}/{year}"
        kept.append(",".join(cells))
    file.write_text("\n".join(kept) + "\n")


def each(prices: Path, change: Callable[[Path], None]) -> None:
    for file in prices.iterdir():
        change(file)


@pytest.mark.requirement("R7.1", "R3.1")
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: each(p, Path.unlink), "no file in"),
        (lambda p: (p / "AAPL.csv").write_text(""), "the file is empty (0 bytes)"),
        (lambda p: header(p / "AAPL.csv", "close,volume", "clse,volume"), "has no column for 'close'"),
        (lambda p: header(p / "AAPL.csv", "adj_close", "other"), "has no column for 'adj_close'"),
        (lambda p: (p / "x.parquet").write_bytes(b"PAR1 and then nothing"), "the Parquet file is damaged"),
        (
            lambda p: rewrite(p / "NFLX.csv", lambda r: [r[0], r[1].replace("2021-03-10", "soon"), *r[2:]]),
            "the date in",
        ),
        (lambda p: rewrite(p / "NFLX.csv", lambda r: [*r[:5], r[5].replace("5", "x"), *r[6:]]), "is not a number"),
        (
            lambda p: each(p, lambda f: dates(f, "ambiguous")),
            "day/month/year or month/day/year, and no date decides it",
        ),
    ],
    ids=["no files", "empty file", "wrong column", "no adjusted close", "damaged", "date", "number", "day or month"],
)
def test_unreadable_prices_are_one_message(tmp_path, edit, message):
    config = small_market(tmp_path, since="2021-01-01")
    edit(tmp_path / "prices")
    said = command("-c", config, "doctor")
    assert said.code == 1
    assert message in " ".join(said.all.replace("│", " ").split())
    assert not (tmp_path / "home" / "lake").exists(), "doctor changes nothing"


def test_a_missing_folder_fails_the_run_with_its_cause(tmp_path):
    config = small_market(tmp_path, source={"path": "nowhere"})
    said = command("-c", config, "--quiet", "run")
    assert said.code == 1
    assert "prepare failed, at the step raw_bars: the folder or file of the source does not exist" in said.all
    assert "stock_pipeline.core" not in said.all, "no names of classes"


def judged(config: Path) -> tuple[Settings, pl.DataFrame, pl.DataFrame]:
    """Fetch and validate as a run does, without what comes after; gives validated and quarantined bars."""
    settings = load_settings(config, environment={})
    runner = Runner(settings)
    history = settings.market.history
    result = runner.definitions.resolve_job_def("prepare").execute_in_process(
        instance=runner.instance,
        asset_selection=[dg.AssetKey(table.split("/")) for table in MARKET],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=range_tags(str(history.first), str(history.last)),
    )
    assert result.success
    lake = Platform(settings).lake
    return settings, lake.read("market/validated_bars"), lake.read("market/quarantined_bars")


@pytest.mark.requirement("R7.2", "R3.1")
def test_bad_rows_are_quarantined_and_the_rest_goes_on(tmp_path):
    config = small_market(tmp_path, since="2020-06-01")
    prices = tmp_path / "prices"

    def spoil(row: list[str]) -> list[str]:
        spoilt = {"2021-02-02": "NaN", "2021-02-04": "inf", "2021-02-08": "-1", "2021-02-10": "0"}
        if row[0] == "AAPL" and row[1] in spoilt:
            value = spoilt[row[1]]
            return [*row[:2], value, value, value, value, row[6], value]
        return row

    rewrite(prices / "AAPL.csv", spoil)
    good = (prices / "AMZN.csv").read_text().splitlines()
    place = next(i for i, line in enumerate(good) if "2021-03-10" in line)
    twice = good[place].replace(",2021-03-10,", ",2021-03-10,9")
    future = good[-1].replace("2021-06-30", "2999-01-04")
    saturday = good[-1].replace("2021-06-30", "2021-06-26")
    unsorted = [good[0], *reversed(good[1:]), twice, future, saturday]
    (prices / "AMZN.csv").write_text("\n".join(unsorted) + "\n")
    (prices / "NEW.csv").write_text(
        good[0] + "\n" + "".join(f"NEW,2021-06-{day},10,11,9,10.{day},1000,10.{day}\n" for day in (30, 28, 29))
    )
    _, validated, quarantined = judged(config)
    bad = {(row["symbol"], str(row["session"])) for row in quarantined.iter_rows(named=True)}
    for day in ("2021-02-02", "2021-02-04", "2021-02-08", "2021-02-10"):
        row = validated.filter((pl.col("symbol") == "AAPL") & (pl.col("session").cast(pl.String) == day))
        assert ("AAPL", day) in bad or row["status"].to_list() == ["repaired"]
    assert ("AMZN", "2021-03-10") in bad
    assert ("AMZN", "2999-01-04") in bad
    assert ("AMZN", "2021-06-26") in bad
    assert validated.filter(pl.col("symbol") == "NEW").height == 3
    assert quarantined["reason"].str.len_chars().min() > 5
    for price in ("open", "high", "low", "close"):
        values = validated[price].drop_nulls()
        assert values.is_finite().all()
        assert (values > 0).all()
    keys = validated.select("symbol", "session")
    assert keys.equals(keys.sort("symbol", "session"))
    assert keys.is_unique().all()


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize("form", ["dmy", "mdy"])
def test_dates_that_decide_themselves_are_read(tmp_path, form):
    config = small_market(tmp_path, since="2021-01-01", symbols=("AAPL", "NFLX"))
    each(tmp_path / "prices", lambda f: dates(f, form))
    _, validated, quarantined = judged(config)
    assert quarantined.is_empty()
    assert str(validated["session"].min()) == "2021-01-04"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"market": {"calendar": "XTKS"}}, "XNYS fits 100%"),
        ({"market": {"calendar": "24/7"}}, "24/7 has 545 sessions where the data has"),
        ({"universe": {"symbols": ["AAPL", "MSFT"]}}, "no prices of MSFT; there are AAPL, AMZN, GOOG, NFLX"),
        ({"universe": {"min_history": 3000}}, "nothing would be predicted"),
        ({"models": {"train": {"folds": 20, "holdout_sessions": 100}}}, "lower models.train.folds or holdout_sessions"),
        ({"source": {"prices": "raw", "columns": {"close": "adj_close"}}, "market": {"history": {"first": 2021}}},
         "before market.history.first"),
    ],
)  # fmt: skip
def test_doctor_finds_what_does_not_fit_the_prices(tmp_path, changes, message):
    config = small_market(tmp_path, since="2020-01-02", until="2021-06-29", **changes)
    said = command("-c", config, "doctor")
    assert message in " ".join(said.all.replace("│", " ").split())


@pytest.mark.requirement("R1.1", "R1.2")
def test_closes_alone_are_enough_where_the_settings_allow_it(tmp_path):
    def closes(file: Path) -> None:
        rewrite(file, lambda row: [row[0], row[1], row[7]])
        header(file, "adj_close", "close")

    changes = {"source": {"prices": "adjusted"}, "features": {"sets": ["technical"]}}
    config = small_market(tmp_path, since="2020-06-01", symbols=("AAPL", "NFLX"), **changes)
    each(tmp_path / "prices", closes)
    said = command("-c", config, "doctor")
    assert said.code == 1
    assert "features.missing_columns: drop" in said.all
    changes["features"]["missing_columns"] = "drop"
    config = small_market(tmp_path, since="2020-06-01", symbols=("AAPL", "NFLX"), **changes)
    each(tmp_path / "prices", closes)
    said = command("-c", config, "doctor")
    assert said.code == 0, said.all
    assert "left out for want of columns" in " ".join(said.all.replace("│", " ").split())


@pytest.mark.requirement("R8.1")
@pytest.mark.parametrize("arguments", [["users", "list"], ["tasks", "list"], ["audit", "verify"]])
def test_a_database_that_is_away_is_one_message(tmp_path, arguments):
    config = small_market(tmp_path, storage={"metadata": f"postgresql+psycopg2://x:hidden@127.0.0.1:{free_port()}/z"})
    said = command("-c", config, *arguments)
    assert said.code == 1
    assert "a database cannot be used: connection to server" in said.all
    assert "under storage" in said.all
    assert "hidden" not in said.all


@pytest.mark.requirement("R8.1", "R2.2")
def test_doctor_names_the_server_that_is_away(tmp_path):
    away = f"127.0.0.1:{free_port()}"
    storage = {
        "metadata": f"postgresql+psycopg2://x:hidden@{away}/z",
        "dagster": f"postgresql+psycopg2://x:hidden@{away}/z",
    }
    config = small_market(tmp_path, storage=storage, access={"redis": f"redis://:hidden@{away}/0"})
    said = command("-c", config, "doctor")
    assert said.code == 1
    for what in ("metadata", "Dagster's runs", "Redis"):
        assert f"wrong │ {what}" in said.all
    assert said.all.count("does not answer: ") == 3
    found = command("-c", config, "doctor", "--json")
    assert found.code == 1
    verdicts = {finding["what"]: finding["verdict"] for finding in json.loads(found.out)}
    assert (verdicts["metadata"], verdicts["features"], verdicts["models"]) == ("wrong", "ok", "note")
    assert "hidden" not in said.all


@pytest.mark.requirement("R8.1", "R2.2")
def test_doctor_finds_servers_that_answer_and_makes_no_file(tmp_path, postgres_address):
    with redis() as address:
        config = small_market(tmp_path, storage={"dagster": postgres_address}, access={"redis": address})
        said = command("-c", config, "doctor")
    assert said.code == 0, said.all
    assert "metadata.db: not made yet" in said.all
    assert "(Postgres " in said.all
    assert "ok │ Redis │ answers" in said.all
    assert not (tmp_path / "home" / "metadata.db").exists()
    open_database(tmp_path / "home" / "metadata.db").dispose()
    assert "metadata.db (SQLite " in command("-c", config, "doctor").all


@pytest.mark.requirement("R8.1")
@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("mysql://x:hidden@127.0.0.1/z", "no such kind of metadata database"),
        ("postgres://x:hidden@127.0.0.1:port/z", "not a database address"),
        ("postgres://x:hidden@127.0.0.1:1/z", "does not answer"),
    ],
)
def test_doctor_reads_the_address_of_the_database_as_the_service_does(tmp_path, address, found):
    said = command("-c", small_market(tmp_path, storage={"metadata": address}), "doctor")
    assert said.code == 1
    assert found in said.all
    assert "hidden" not in said.all
