"""`stock-pipeline show`: what is stored, as a table, JSON, CSV or Parquet."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import out, table
from stock_pipeline.core.errors import ConfigurationError, NotFoundError


class Kind(StrEnum):
    """What can be shown."""

    predictions = "predictions"
    unpredicted = "unpredicted"
    outcomes = "outcomes"
    bars = "bars"
    quarantine = "quarantine"
    quality = "quality"
    risk = "risk"
    models = "models"
    backtests = "backtests"


class Format(StrEnum):
    """How it can be shown."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


TABLES = {
    Kind.predictions: "predictions/published",
    Kind.unpredicted: "predictions/unpredicted",
    Kind.outcomes: "predictions/outcomes",
    Kind.bars: "market/validated_bars",
    Kind.quarantine: "market/quarantined_bars",
    Kind.quality: "market/quality_scores",
    Kind.risk: "risk/symbol_risk",
    Kind.backtests: "backtests/summary",
}
SHOWN_COLUMNS = {
    Kind.predictions: [
        "rank", "symbol", "session", "expected_return", "lower", "upper", "confidence", "volatility", "var_95",
        "close", "currency", "model_name", "model_version", "fallback_level", "prediction_id",
    ],
}  # fmt: skip
NEWEST_ONLY = {Kind.predictions, Kind.unpredicted, Kind.risk}


@app.command()
def show(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What to show.")],
    symbol: Annotated[list[str] | None, typer.Option("--symbol", "-s", help="Only these symbols.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All sessions, not only the newest.")] = False,
    format: Annotated[Format, typer.Option("--format", "-f", help="Form of the output.")] = Format.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
) -> None:
    """Show what is stored."""
    from stock_pipeline.orchestration.resources import Platform

    given: Context = context.obj
    platform = Platform(given.settings())
    frame = _models(platform) if kind == Kind.models else _table(platform, kind, symbol, every)
    if kind in SHOWN_COLUMNS and format == Format.table:
        frame = frame.select(SHOWN_COLUMNS[kind]).sort("session", "rank")
    emit(frame, format.value, output, title=f"{kind.value} of {platform.settings.market.name}")


def _table(platform, kind: Kind, symbols: list[str] | None, every: bool) -> pl.DataFrame:
    name = TABLES[kind]
    if not platform.lake.exists(name):
        raise NotFoundError(
            f"there are no {kind.value} yet", value=platform.settings.storage.lake_uri, fix="run `stock-pipeline run`"
        )
    start = platform.lake.last_session(name) if kind in NEWEST_ONLY and not every else None
    frame = platform.lake.read(name, start=start, symbols=symbols)
    if kind == Kind.predictions:
        frame = frame.sort("session", "rank")
    return frame


def _models(platform) -> pl.DataFrame:
    rows = [
        {
            "version": version.version,
            "family": version.family,
            "aliases": ", ".join(version.aliases),
            "trained_through": version.trained_through,
            **{name: version.metrics.get(name) for name in ("rank_ic", "rank_ic_t", "hit_rate", "rmse")},
            "run_id": version.run_id,
        }
        for version in platform.model_registry.versions()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def emit(frame: pl.DataFrame, form: str, output: Path | None, *, title: str = "") -> None:
    """Print or write a frame.

    Raises
    ------
    ConfigurationError
        Parquet was asked for without a file.
    """
    if form == "parquet":
        if output is None:
            raise ConfigurationError("Parquet cannot be printed", allowed="--output FILE with --format parquet")
        frame.write_parquet(output)
    elif form == "table" and output is None:
        print_frame(frame, title)
    else:
        text = _json(frame) if form == "json" else _csv(frame)
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(text, encoding="utf-8")
    if output is not None:
        out.print(f"{frame.height} rows written to {output}", markup=False)


def _csv(frame: pl.DataFrame) -> str:
    flat = frame.with_columns(pl.col(name).list.join("; ") for name, kind in frame.schema.items() if kind == pl.List)
    return flat.write_csv()


def _json(frame: pl.DataFrame) -> str:
    import orjson

    return orjson.dumps(frame.to_dicts(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def print_frame(frame: pl.DataFrame, title: str, limit: int = 40) -> None:
    """Print the newest rows of a frame as a table that fits the terminal."""
    shown = frame.tail(limit)
    numeric = [name for name, kind in shown.schema.items() if kind.is_numeric()]
    columns = [(name, "right" if name in numeric else "left") for name in shown.columns]
    rows = [[_cell(value) for value in row] for row in shown.iter_rows()]
    caption = f"the newest {limit} of {frame.height} rows; --format csv gives all" if frame.height > limit else None
    out.print(table(title, columns, rows, caption))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
