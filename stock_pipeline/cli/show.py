"""`stock-pipeline show`: what is stored, as a table, JSON, CSV or Parquet."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import cell, err, number_of, out, table
from stock_pipeline.core.errors import ConfigurationError, NotFoundError


class Kind(StrEnum):
    """What can be shown."""

    predictions = "predictions"
    unpredicted = "unpredicted"
    outcomes = "outcomes"
    bars = "bars"
    quarantine = "quarantine"
    quality = "quality"
    findings = "findings"
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
    Kind.findings: "market/quality_findings",
    Kind.risk: "risk/symbol_risk",
    Kind.backtests: "backtests/summary",
}
FIRST_COLUMNS = {
    Kind.predictions: [
        "rank", "symbol", "session", "expected_return", "lower", "upper", "confidence", "prediction_id", "volatility",
        "var_95", "close", "currency", "model_name", "model_version", "fallback_level",
    ],
    Kind.outcomes: [
        "symbol", "session", "expected_return", "lower", "upper", "realised_return", "inside", "label_session", "hit",
        "confidence", "model_name", "model_version", "fallback_level",
    ],
    Kind.bars: [
        "symbol", "session", "open", "high", "low", "close", "volume", "adj_factor", "status", "quality_score",
        "currency",
    ],
    Kind.quarantine: ["symbol", "session", "reason", "rules", "open", "high", "low", "close", "volume"],
    Kind.findings: ["session", "symbol", "rule", "severity", "message", "value", "expected", "field"],
    Kind.risk: [
        "symbol", "session", "volatility", "var_95", "es_95", "var_99", "es_99", "drawdown", "max_drawdown_252",
        "sharpe_252", "risk_method",
    ],
    Kind.backtests: [
        "strategy", "annual_return", "sharpe", "max_drawdown", "volatility", "deflated_sharpe", "total_costs",
        "turnover", "trades", "first_session", "last_session", "report",
    ],
}  # fmt: skip
"""What people look at first, in this order; the other formats hold every column."""

NEWEST_ONLY = {Kind.predictions, Kind.unpredicted, Kind.risk}
NOTHING = {
    Kind.unpredicted: "every symbol of the universe was predicted",
    Kind.quarantine: "no bar is in quarantine",
    Kind.findings: "the rules found nothing to say",
    Kind.outcomes: "no prediction has matured yet",
}
HEADINGS = {
    "expected_return": "expected", "realised_return": "realised", "prediction_id": "id", "model_name": "model",
    "model_version": "version", "fallback_level": "fallback", "annual_return": "return a year",
    "max_drawdown": "drawdown", "deflated_sharpe": "deflated", "total_costs": "costs", "label_session": "known on",
    "quality_score": "quality", "max_drawdown_252": "worst in 252", "sharpe_252": "Sharpe 252", "risk_method": "method",
    "trained_through": "trained through", "first_session": "first", "last_session": "last",
}  # fmt: skip


@app.command()
def show(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What to show.")],
    symbol: Annotated[list[str] | None, typer.Option("--symbol", "-s", help="Only this symbol, repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All sessions, not only the newest.")] = False,
    format: Annotated[Format, typer.Option("--format", "-f", help="Form of the output.")] = Format.table,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; its ending decides the form where --format does not."),
    ] = None,
) -> None:
    """Show what is stored: the newest rows as a table, or all columns as JSON, CSV or Parquet."""
    from stock_pipeline.orchestration.resources import Platform

    given: Context = context.obj
    platform = Platform(given.settings())
    frame = _models(platform, symbol) if kind == Kind.models else _table(platform, kind, symbol, every)
    title = f"{kind.value} of {platform.settings.market.name}"
    if format == Format.table and output is None:
        print_rows(frame, title, FIRST_COLUMNS.get(kind), NOTHING.get(kind, "no rows"))
    else:
        write(frame, format.value, output)


def _table(platform: Any, kind: Kind, symbols: list[str] | None, every: bool) -> pl.DataFrame:
    name = TABLES[kind]
    if not platform.lake.exists(name):
        raise NotFoundError(
            f"there are no {kind.value} yet", value=platform.settings.storage.lake_uri, fix="run `stock-pipeline run`"
        )
    if symbols and kind == Kind.backtests:
        raise ConfigurationError("back-tests are of all symbols", value=symbols, fix="leave --symbol out")
    start = platform.lake.last_session(name) if kind in NEWEST_ONLY and not every else None
    frame = platform.lake.read(name, start=start, symbols=symbols)
    if symbols and frame.is_empty():
        known = set(platform.lake.read(TABLES[Kind.bars], columns=["symbol"])["symbol"].unique().to_list())
        unknown = sorted(set(symbols) - known)
        if unknown:
            raise NotFoundError("there are no bars of these symbols", value=unknown, allowed=examples(sorted(known)))
    if kind == Kind.backtests:
        return frame
    return frame.sort("session", "rank" if kind == Kind.predictions else "symbol")


def examples(names: list[str], count: int = 20) -> str:
    """The first of many names."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _models(platform: Any, symbols: list[str] | None) -> pl.DataFrame:
    if symbols:
        raise ConfigurationError("models are of all symbols", value=symbols, fix="leave --symbol out")
    rows = [
        {
            "version": version.version,
            "family": version.family,
            "aliases": ", ".join(version.aliases),
            "trained_through": version.trained_through,
            **{name: version.metrics.get(f"oos/{name}") for name in ("rank_ic", "rank_ic_t", "hit_rate", "rmse")},
            "run_id": version.run_id,
        }
        for version in platform.model_registry.versions()
    ]
    if not rows:
        raise NotFoundError("there are no models yet", fix="run `stock-pipeline run`")
    return pl.DataFrame(rows, infer_schema_length=None)


def write(frame: pl.DataFrame, form: str, output: Path | None) -> None:
    """Write a frame with all its columns to a file, or print it.

    Parameters
    ----------
    form
        ``json``, ``csv`` or ``parquet``; ``table`` takes the form from the file's ending.

    Raises
    ------
    ConfigurationError
        Parquet was asked for without a file, the ending tells no form, or the folder of the file does not exist.
    """
    if form == "table" and output is not None:
        form = output.suffix.removeprefix(".").lower()
        if form not in ("json", "csv", "parquet"):
            raise ConfigurationError(
                "the ending of the file tells no form",
                value=str(output),
                allowed=".json, .csv, .parquet",
                fix="rename it, or state --format",
            )
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigurationError(
            "the folder of the output file does not exist", value=str(output), fix=f"make {output.absolute().parent}"
        )
    if form == "parquet":
        if output is None:
            raise ConfigurationError("Parquet cannot be printed", allowed="--output FILE with --format parquet")
        frame.write_parquet(output)
    else:
        text = _json(frame) if form == "json" else _csv(frame)
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(text, encoding="utf-8")
    if output is not None:
        err.print(f"{number_of(frame.height, 'row')} written to {output}", markup=False, soft_wrap=True)


def _csv(frame: pl.DataFrame) -> str:
    flat = frame.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("; ")
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.List)
    )
    return flat.write_csv()


def _json(frame: pl.DataFrame) -> str:
    import orjson

    return orjson.dumps(frame.to_dicts(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def print_rows(
    frame: pl.DataFrame, title: str, first: list[str] | None = None, nothing: str = "no rows", limit: int = 40
) -> None:
    """Print the last rows of a frame as a table that fits the terminal.

    Parameters
    ----------
    first
        Columns to show, the important first; all in their order where ``None``.
    nothing
        What to say of a frame without rows.
    """
    if frame.is_empty():
        out.print(f"{title}: {nothing}", markup=False)
        return
    shown = frame.tail(limit).select([name for name in first or frame.columns if name in frame.columns])
    columns = [
        (HEADINGS.get(name, name.replace("_", " ")), "right" if kind.is_numeric() else "left")
        for name, kind in shown.schema.items()
    ]
    rows = [[cell(value) for value in row] for row in shown.iter_rows()]
    caption = f"the last {limit} of {frame.height:,} rows" if frame.height > limit else None
    out.print(table(title, columns, rows, caption))
