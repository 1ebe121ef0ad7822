"""Metadata that people see on an asset's page: column schema, row counts, ranges, plots over time, links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.orchestration import plots
from stock_pipeline.orchestration.partitions import table_name
from stock_pipeline.orchestration.relay_records import RESULT
from stock_pipeline.storage.lake import Lake


def column_schema(schema: Mapping[str, Any], descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Dagster's column schema of a frame's schema, with descriptions where known."""
    known = descriptions or {}
    return dg.TableSchema(columns=[dg.TableColumn(name, str(dtype), known.get(name)) for name, dtype in schema.items()])


def frame_metadata(frame: pl.DataFrame, *, version: int | None = None, preview: int = 5) -> dict[str, Any]:
    """Row and symbol counts, first and last session, lake version and the newest rows as a table.

    The columns are shown from the asset's definition: in every event they would be most of the event log.
    """
    metadata: dict[str, Any] = {"dagster/row_count": frame.height}
    if "session" in frame.columns and not frame.is_empty():
        metadata["first_session"] = str(frame["session"].min())
        metadata["last_session"] = str(frame["session"].max())
        frame = frame.sort("session")
    if "symbol" in frame.columns:
        metadata["symbols"] = frame["symbol"].n_unique()
    if version is not None:
        metadata["lake_version"] = version
    if frame.height:
        metadata["newest_rows"] = dg.MetadataValue.md(markdown_table(frame.tail(preview)))
    return metadata


def markdown_table(frame: pl.DataFrame, columns: int = 12) -> str:
    """A small frame as a Markdown table; wide frames are cut after `columns` columns."""
    shown = frame.select(frame.columns[:columns])
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    for row in shown.iter_rows():
        cells = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in row]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    if len(frame.columns) > columns:
        lines.append(f"\n... and {len(frame.columns) - columns} more columns")
    return "\n".join(lines)


FIGURES = ("rank_ic", "rank_ic_t", "hit_rate", "always_up_hit_rate", "rmse", "skill_zero", "long_short_net_bps")


def figures_table(figures: Mapping[str, Mapping[str, float | None]]) -> str:
    """Out-of-sample figures of models and baselines side by side, as a Markdown table."""
    rows = [{"model": name, **{figure: found.get(figure) for figure in FIGURES}} for name, found in figures.items()]
    schema = {"model": pl.String, **dict.fromkeys(FIGURES, pl.Float64)}
    return markdown_table(pl.DataFrame(rows, schema=schema))


def task_result(**values: Any) -> dict[str, Any]:
    """Metadata that becomes part of the result of the task that the run belongs to; plain JSON values."""
    return {RESULT: dg.MetadataValue.json(values)}


def sessions_result(computed: pl.Series | None) -> dict[str, Any]:
    """Which sessions a run has computed again, as part of its task's result."""
    if computed is None or computed.is_empty():
        return task_result(sessions=0, first=None, last=None)
    return task_result(sessions=computed.n_unique(), first=str(computed.min()), last=str(computed.max()))


def up_to_date(version: int | None) -> dict[str, Any]:
    """Metadata of a step that found nothing new."""
    metadata: dict[str, Any] = {"up_to_date": True}
    if version is not None:
        metadata["lake_version"] = version
    return metadata


def table_metadata(lake: Lake, table: str, written: int) -> dict[str, Any]:
    """Rows of a whole stored table, those that this run has written, and a drawing of rows a year."""
    by_year = _collect(
        lake.scan(table, columns=["session"]).group_by(pl.col("session").dt.year().alias("year")).len().sort("year")
    )
    return {
        "dagster/row_count": int(by_year["len"].sum()),
        "rows_written": written,
        "rows_per_year": plots.bars(by_year["year"].to_list(), by_year["len"].to_list()),
    }


def over_time(lake: Lake, table: str, values: Mapping[str, pl.Expr], *, every: str = "1mo") -> dg.MarkdownMetadataValue:
    """Draw aggregates of a stored table by month.

    Parameters
    ----------
    values
        Aggregating expressions by name.
    every
        Length of the periods, in Polars' words.
    """
    frame = _collect(
        lake.scan(table)
        .group_by(pl.col("session").dt.truncate(every).alias("period"))
        .agg(**values)  # type: ignore[arg-type]
        .sort("period")
    )
    labels = [f"{period:%Y-%m}" for period in frame["period"]]
    return plots.line(labels, {name: frame[name].to_list() for name in values})


def quality_metadata(lake: Lake, table: str) -> dict[str, Any]:
    """Mean quality score of the newest session, and its course."""
    newest = lake.last_session(table)
    if newest is None:
        return {}
    score = lake.read(table, start=newest, columns=["score"])["score"].mean()
    return {
        "quality_score": score,
        "quality_score_over_time": over_time(lake, table, {"score": pl.col("score").mean()}),
    }


def risk_metadata(lake: Lake, table: str) -> dict[str, Any]:
    """Median volatility and value at risk of the newest session, and the course of volatility."""
    newest = lake.last_session(table)
    if newest is None:
        return {}
    rows = lake.read(table, start=newest, columns=["volatility", "var_95"])
    figures = {f"median_{name}": rows[name].median() for name in ("volatility", "var_95")}
    drawn = over_time(lake, table, {"volatility": pl.col("volatility").median()})
    return {name: value for name, value in figures.items() if value is not None} | {"volatility_over_time": drawn}


def publication_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Figures of one session's predictions, so that the web UI can draw them from night to night."""
    if rows.is_empty():
        return {"predictions": 0}
    return {
        "predictions": rows.height,
        "mean_expected_return": rows["expected_return"].mean(),
        "mean_interval_width": (rows["upper"] - rows["lower"]).mean(),
        "mean_confidence": rows["confidence"].mean(),
        "worst_fallback_level": rows["fallback_level"].max(),
    }


def outcome_metadata(outcomes: pl.DataFrame, target: float) -> dict[str, Any]:
    """Realised coverage and hit rate of all matured predictions, and coverage by month."""
    if outcomes.is_empty():
        return {}
    months = (
        outcomes.group_by(pl.col("session").dt.truncate("1mo").alias("month"))
        .agg(coverage=pl.col("inside").mean())
        .sort("month")
    )
    labels = [f"{month:%Y-%m}" for month in months["month"]]
    lines = {"coverage": months["coverage"].to_list(), "promised": [target] * months.height}
    figures = {"coverage": outcomes["inside"].mean(), "hit_rate": outcomes["hit"].mean()}
    known = {name: value for name, value in figures.items() if value is not None}
    return known | {"coverage_over_time": plots.line(labels, lines)}


def skill_metadata(
    oos: Mapping[str, pl.DataFrame], figures: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Any]:
    """Out-of-sample rank IC and hit rate of each model as numbers, and the rank IC of each fold.

    Parameters
    ----------
    oos
        Walk-forward predictions by model.
    figures
        Evaluations by model, as `core.modelling.evaluation.evaluate` gives them.
    """
    metadata: dict[str, Any] = {}
    by_fold: dict[str, dict[int, float | None]] = {}
    for name, frame in oos.items():
        for figure in ("rank_ic", "hit_rate"):
            value = figures.get(name, {}).get(figure)
            if value is not None:
                metadata[_key(figure, name)] = float(value)
        found = (
            frame.group_by("fold", "session")
            .agg(ic=pl.corr("prediction", "label", method="spearman"))
            .filter(pl.col("ic").is_finite())
            .group_by("fold")
            .agg(pl.col("ic").mean())
        )
        if found.height:  # a constant forecast ranks nothing
            by_fold[name] = dict(found.iter_rows())
    folds = sorted({fold for values in by_fold.values() for fold in values})
    if folds:
        lines = {name: [values.get(fold) for fold in folds] for name, values in by_fold.items()}
        metadata["rank_ic_by_fold"] = plots.line([f"fold {fold}" for fold in folds], lines)
    return metadata


def backtest_metadata(lake: Lake, summary: pl.DataFrame, computed: Sequence[str]) -> dict[str, Any]:
    """Sharpe ratio and return of every strategy as numbers, and the curves of those that were computed in this run."""
    metadata: dict[str, Any] = {}
    for row in summary.iter_rows(named=True):
        for figure in ("sharpe", "annual_return", "max_drawdown"):
            if row.get(figure) is not None:
                metadata[_key(figure, row["strategy"])] = float(row[figure])
    for name in computed:
        curves = lake.read(f"backtests/equity/{table_name(name)}").sort("session")
        shown: dict[str, list[float | None]] = {
            column: (curves[column] / curves[column].drop_nulls().first()).to_list()
            for column in ("equity", "buy_and_hold", "benchmark")
            if column in curves.columns and curves[column].null_count() < curves.height
        }
        metadata[_key("equity", name)] = plots.line(curves["session"].to_list(), shown)
    return metadata


def _key(figure: str, name: str) -> str:
    return f"{figure}_{re.sub(r'[^A-Za-z0-9_]+', '_', name)}"


def _collect(lazy: pl.LazyFrame) -> pl.DataFrame:
    return lazy.collect(engine="in-memory")
