"""The one way in which a derived table is brought up to date: plan, compute, write, record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.orchestration.metadata import frame_metadata, table_metadata, up_to_date
from stock_pipeline.orchestration.partitions import rebuild, window
from stock_pipeline.orchestration.progress import Reporter
from stock_pipeline.orchestration.resources import Platform


def derive(
    context: dg.AssetExecutionContext,
    platform: Platform,
    table: str,
    *,
    inputs: Mapping[str, pl.DataFrame],
    parameters: str,
    compute: Callable[[date, date], Iterable[pl.DataFrame]],
) -> dict[str, Any]:
    """Compute the sessions of `table` whose inputs changed, write them, and remember their inputs.

    Parameters
    ----------
    inputs
        Everything that `compute` reads; decides what is new.
    parameters
        Hash of settings and code; a change computes everything again.
    compute
        Gives the rows of the sessions from start to end, both inclusive, in pieces of consecutive sessions, so that
        memory is bounded by a piece. Each piece is one commit; the inputs are remembered after the last one, so a run
        that is killed in between is repeated.

    Returns
    -------
    dict
        Metadata for the materialisation.
    """
    span = window(context, platform.settings.market.history)
    plan = platform.watermarks.plan(table, inputs, parameters, window=span, rebuild=rebuild(context))
    if plan.start is None or plan.end is None:
        context.log.info("%s is up to date", table)
        return up_to_date(platform.lake.version(table))
    start, rows, metadata = plan.start, 0, {}
    progress, years = Reporter(context.log.info), _years(inputs, plan.start, plan.end)
    for piece, last in _with_last(compute(plan.start, plan.end)):
        end: Any = plan.end if last else piece["session"].max()
        if rows == 0 and _has_other_columns(platform, table, piece):
            _make_anew(platform, table, piece, start)
        version = platform.lake.write_sessions(table, piece, start=start, end=end, metadata={"run_id": context.run_id})
        rows += piece.height
        metadata = frame_metadata(piece, version=version)
        if years and not last:
            progress("year", sum(year <= end.year for year in years), len(years), table)
        start = end + timedelta(days=1) if end < date.max else end
    platform.watermarks.record(table, plan, parameters)
    metadata |= table_metadata(platform.lake, table, rows) if metadata else {}
    metadata["first_session"] = str(plan.start)
    context.log.info("%s: %s rows for %s to %s", table, rows, plan.start, plan.end)
    return metadata


def _years(inputs: Mapping[str, pl.DataFrame], start: date, end: date) -> list[int]:
    """The years of the inputs that are computed: a plan may be open to both sides."""
    sessions = [frame["session"].dt.year() for frame in inputs.values() if "session" in frame.columns]
    known = pl.concat(sessions).unique().sort().to_list() if sessions else []
    return [year for year in known if start.year <= year <= end.year]


def _has_other_columns(platform: Platform, table: str, piece: pl.DataFrame) -> bool:
    return platform.lake.exists(table) and dict(platform.lake.schema(table)) != dict(piece.schema)


def _make_anew(platform: Platform, table: str, piece: pl.DataFrame, start: date) -> None:
    """Begin a table again whose columns have changed, which needs all of its sessions in one run."""
    first = min(platform.lake.sessions(table), default=start)
    if first < start:
        raise DataError(
            f"the columns of {table} have changed, so all of it must be computed again",
            value=f"this run begins with {start}, the table with {first}",
            fix="run `stock-pipeline run` without --from",
        )
    platform.lake.replace(table, piece.clear())


def _with_last(pieces: Iterable[pl.DataFrame]) -> Iterator[tuple[pl.DataFrame, bool]]:
    """Pair each piece with whether it is the last one; one piece is looked ahead."""
    iterator = iter(pieces)
    piece = next(iterator, None)
    while piece is not None:
        following = next(iterator, None)
        yield piece, following is None
        piece = following
