"""The one way in which a derived table is brought up to date: plan, compute, write, record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.orchestration.metadata import frame_metadata, up_to_date
from stock_pipeline.orchestration.partitions import rebuild, window
from stock_pipeline.orchestration.resources import Platform


def derive(
    context: dg.AssetExecutionContext,
    platform: Platform,
    table: str,
    *,
    inputs: Mapping[str, pl.DataFrame],
    parameters: str,
    compute: Callable[[date, date], pl.DataFrame],
) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Compute the sessions of `table` whose inputs changed, write them in one commit, and remember their inputs.

    Parameters
    ----------
    inputs
        Everything that `compute` reads; decides what is new.
    parameters
        Hash of settings and code; a change computes everything again.
    compute
        Gives the rows of the sessions from start to end, both inclusive.

    Returns
    -------
    tuple
        Metadata for the materialisation, and the rows that were written (``None`` when the table was up to date).
    """
    span = window(context, platform.settings.market.history)
    plan = platform.watermarks.plan(table, inputs, parameters, window=span, rebuild=rebuild(context))
    if plan.start is None or plan.end is None:
        context.log.info("%s is up to date", table)
        return up_to_date(platform.lake.version(table)), None
    frame = compute(plan.start, plan.end)
    version = platform.lake.write_sessions(
        table, frame, start=plan.start, end=plan.end, metadata={"run_id": context.run_id}
    )
    platform.watermarks.record(table, plan, parameters)
    context.log.info("%s: %s rows for %s to %s", table, frame.height, plan.start, plan.end)
    return frame_metadata(frame, version=version), frame


def tail_before(frame: pl.DataFrame, start: date, rows: int) -> pl.DataFrame:
    """Keep, for each symbol, all rows from `start` on and the last `rows` rows before it."""
    before = frame.filter(pl.col("session") < start).group_by("symbol", maintain_order=True).tail(rows)
    return pl.concat([before, frame.filter(pl.col("session") >= start)]).sort("symbol", "session")
