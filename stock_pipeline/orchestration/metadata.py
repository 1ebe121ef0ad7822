"""Metadata that people see on an asset's page: column schema, row counts, ranges, plots over time, links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl


def column_schema(schema: Mapping[str, Any], descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Dagster's column schema of a frame's schema, with descriptions where known."""
    known = descriptions or {}
    return dg.TableSchema(columns=[dg.TableColumn(name, str(dtype), known.get(name)) for name, dtype in schema.items()])


def frame_metadata(frame: pl.DataFrame, *, version: int | None = None, preview: int = 5) -> dict[str, Any]:
    """Row and symbol counts, first and last session, lake version and the newest rows as a table."""
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


def up_to_date(version: int | None) -> dict[str, Any]:
    """Metadata of a step that found nothing new."""
    metadata: dict[str, Any] = {"up_to_date": True}
    if version is not None:
        metadata["lake_version"] = version
    return metadata
