"""The partitions of the assets: years for what grows nightly, names for models and strategies.

A year is also the physical partition of the lake's tables. Sessions inside a year are found by content
(`stock_pipeline.storage.watermarks`), so a nightly run of the current year computes only what is new; see
``docs/adr/0002-yearly-partitions.md`` for the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import dagster as dg

from stock_pipeline.config.launches import FAMILIES, FROM, REBUILD, TO
from stock_pipeline.config.settings import History


def years(first: int, last: int | None = None) -> dg.TimeWindowPartitionsDefinition:
    """Partitions by calendar year from `first` to the current year, or to `last` for a market that has ended."""
    end = None if last is None else f"{last + 1}"
    return dg.TimeWindowPartitionsDefinition(
        start=str(first),
        end=end,
        cron_schedule="0 0 1 1 *",
        fmt="%Y",
        timezone="UTC",
        end_offset=0 if end else 1,
    )


def window(context: dg.AssetExecutionContext, history: History) -> tuple[date, date]:
    """The inclusive range of sessions that a run of yearly partitions is about.

    The first and the last partition are open to their side: rows dated outside the history, such as a session in the
    far future, are taken in and judged by validation instead of being overlooked.
    """
    keys = context.partition_key_range
    start, end = date(int(keys.start), 1, 1), date(int(keys.end), 12, 31)
    if start.year == history.first:
        start = date.min
    if end.year == (history.last or datetime.now(UTC).year):
        end = date.max
    tags = context.run.tags
    if FROM in tags:
        start = max(start, date.fromisoformat(tags[FROM]))
    if TO in tags:
        end = min(end, date.fromisoformat(tags[TO]))
    return start, end


def chosen_families(context: dg.AssetExecutionContext, configured: Sequence[str]) -> list[str]:
    """The model families that a run is about, in the order of the configuration."""
    wanted = set(context.partition_keys)
    if FAMILIES in context.run.tags:
        wanted &= set(context.run.tags[FAMILIES].split(","))
    return [name for name in configured if name in wanted]


def rebuild(context: dg.AssetExecutionContext) -> bool:
    """Whether the run was asked to compute again what did not change."""
    return context.run.tags.get(REBUILD) == "true"


def table_name(strategy: str) -> str:
    """A strategy's name as part of table and file names; users' strategies are named ``package.module:Class``."""
    return strategy.replace(":", "-").replace(".", "_")
