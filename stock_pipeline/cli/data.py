"""Commands around your own data: write a configuration, compute features of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stock_pipeline.cli.app import app
from stock_pipeline.cli.console import out
from stock_pipeline.core.errors import ConfigurationError, DataError

TEMPLATE = """\
# Configuration of one market; every key is in docs/reference/configuration.md, `stock-pipeline doctor` checks it.
home: {home}                       # everything made at run time
market:
  name: {name}
  calendar: {calendar}             # XNYS, XSHG, XTKS, XNSE, XLON, ... or 24/7
  currency: {currency}
  history: {{first: {first}}}       # first year of the yearly partitions
source:
  kind: files                      # or yfinance, akshare (optional extras)
  path: {path}                     # a folder of CSV or Parquet files, or one file
  columns: {{}}                      # ours: theirs, e.g. {{symbol: ticker, session: date}}
  prices: {prices}                 # raw | adjusted | raw_with_adj_close | raw_with_factors | raw_with_events
  # date_format: "%d/%m/%Y"        # only where dates are ambiguous
  # membership: membership.csv     # symbol, start, end: a point-in-time universe
  # benchmark: benchmark.csv       # session, close
universe: {{symbols: all, min_history: 252}}
features:
  sets: [technical, statistical]   # also: alpha158, or your own modules
  missing_columns: drop            # leave out features whose columns the vendor does not deliver
models:
  families: [lightgbm, ridge]
  horizon: 5
  train: {{window: expanding, folds: 5, embargo: 5}}
backtests:
  strategies: [buy_and_hold, sma_cross, momentum_rank, model_rank]
  costs: {{commission_bps: 5, slippage_bps: 5}}
"""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Folder or file of prices.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Configuration file to write.")] = Path(
        "stock_pipeline.yaml"
    ),
    name: Annotated[str, typer.Option(help="Name of the market.")] = "my_market",
    calendar: Annotated[str, typer.Option(help="Exchange calendar.")] = "XNYS",
    currency: Annotated[str, typer.Option(help="Currency of the prices.")] = "USD",
    prices: Annotated[str, typer.Option(help="What the prices are.")] = "raw",
    first: Annotated[int, typer.Option(help="First year of history.")] = 1990,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a configuration for your own folder of prices, and check it."""
    from stock_pipeline.config import load_settings

    if output.exists() and not force:
        raise ConfigurationError(
            "the configuration file exists already", value=str(output), fix="use --force or --output"
        )
    if not path.exists():
        raise DataError("there is no such folder or file", value=str(path), fix="give the path of your prices")
    text = TEMPLATE.format(
        home="data/home",
        name=name,
        calendar=calendar,
        currency=currency,
        path=path.resolve(),
        prices=prices,
        first=first,
    )
    output.write_text(text, encoding="utf-8")
    load_settings(output)
    out.print(
        f"{output} written. Next: stock-pipeline -c {output} doctor, then stock-pipeline -c {output} run", markup=False
    )


features = typer.Typer(help="Features of your own files.", no_args_is_help=True)
app.add_typer(features, name="features")


@features.command("list")
def list_features(
    sets: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Feature set or feature; all sets by default.")
    ] = None,
) -> None:
    """List features with their look-back, inputs and source."""
    from stock_pipeline.cli.show import print_frame
    from stock_pipeline.core.features import describe, feature_set

    frame = describe(feature_set(sets or ["technical", "statistical", "alpha158"]))
    print_frame(frame.select("name", "kind", "lookback", "inputs", "description"), "Features", limit=1000)


@features.command("compute")
def compute_features(
    sets: Annotated[list[str], typer.Option("--set", "-s", help="Feature set or feature, repeatable.")],
    source: Annotated[Path, typer.Option("--input", "-i", help="CSV or Parquet file or folder of bars.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet or CSV file to write.")],
    prices: Annotated[str, typer.Option(help="What the prices are, as source.prices.")] = "adjusted",
    calendar: Annotated[str, typer.Option(help="Exchange calendar of the bars.")] = "XNYS",
    exclude: Annotated[list[str] | None, typer.Option(help="Features to leave out.")] = None,
) -> None:
    """Compute features of a file of bars, without a pipeline around it."""
    from stock_pipeline.core.features import available, columns_with_data, compute, feature_set
    from stock_pipeline.core.market.source_settings import FilesSource
    from stock_pipeline.sources import build

    if output.suffix not in (".parquet", ".csv"):
        raise ConfigurationError("the output must be Parquet or CSV", value=str(output), allowed=".parquet, .csv")
    settings = FilesSource.model_validate({"path": str(source), "prices": prices})
    bars = build(settings, calendar=calendar).fetch(None, None).bars.sort("symbol", "session")
    chosen = available(feature_set(sets, exclude=exclude or ()), columns_with_data(bars))
    frame = compute(bars, chosen)
    if output.suffix == ".parquet":
        frame.write_parquet(output)
    else:
        frame.write_csv(output)
    out.print(f"{frame.height} rows of {len(chosen.features)} features written to {output}", markup=False)
