"""`stock-pipeline features`: list the features there are, compute those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from stock_pipeline.cli.app import app
from stock_pipeline.core.errors import ConfigurationError

features = typer.Typer(help="Features of your own files.", no_args_is_help=True)
app.add_typer(features, name="features")


@features.command("list")
def list_features(
    sets: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Feature set or feature; all sets by default.")
    ] = None,
) -> None:
    """List features with their look-back, inputs and source."""
    from stock_pipeline.cli.show import print_rows
    from stock_pipeline.core.features import describe, feature_set

    frame = describe(feature_set(sets or ["technical", "statistical", "alpha158"]))
    print_rows(frame, "Features", ["name", "lookback", "description", "inputs", "kind"], limit=1000)


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
    from stock_pipeline.cli.show import write
    from stock_pipeline.core.features import available, columns_with_data, compute, feature_set
    from stock_pipeline.core.market.source_settings import FilesSource, PriceBasis
    from stock_pipeline.sources import build

    if output.suffix not in (".parquet", ".csv"):
        raise ConfigurationError("the output must be Parquet or CSV", value=str(output), allowed=".parquet, .csv")
    try:
        settings = FilesSource.model_validate({"path": str(source), "prices": prices})
    except ValidationError as error:
        allowed = ", ".join(get_args(PriceBasis))
        raise ConfigurationError("no such kind of prices", value=prices, allowed=allowed) from error
    bars = build(settings, calendar=calendar).fetch(None, None).bars.sort("symbol", "session")
    chosen = available(feature_set(sets, exclude=exclude or ()), columns_with_data(bars))
    write(compute(bars, chosen), "table", output)
