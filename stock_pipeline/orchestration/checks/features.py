"""Checks of feature tables."""

from __future__ import annotations

import dagster as dg
import polars as pl

from stock_pipeline.core.market.bars import KEYS
from stock_pipeline.orchestration.checks.base import WARN, result, spec
from stock_pipeline.orchestration.metadata import markdown_table


def specs(table: str) -> list[dg.AssetCheckSpec]:
    """The checks of one feature table."""
    return [
        spec(table, "features_are_finite", "No feature is NaN or infinite; unknown is null.", blocking=True),
        spec(table, "every_bar_has_features", "Each validated bar has one row of features.", blocking=True),
        spec(table, "features_are_known", "Few values of the newest session are null."),
    ]


def evaluate(table: str, stored: pl.DataFrame, bars: pl.DataFrame) -> list[dg.AssetCheckResult]:
    """Judge a stored feature table against the bars that it was made from.

    Parameters
    ----------
    stored
        Rows of the table in the range of the run.
    bars
        Validated bars of the same range.
    """
    names = [column for column in stored.columns if column not in KEYS]
    bad = stored.select(pl.col(name).is_finite().not_().sum() for name in names).row(0) if stored.height else ()
    infinite = {name: count for name, count in zip(names, bad, strict=False) if count}
    keys = bars.select(KEYS)
    missing = keys.join(stored.select(KEYS), on=list(KEYS), how="anti")
    extra = stored.height - keys.height + missing.height
    newest = stored.filter(pl.col("session") == pl.col("session").max())
    nulls = newest.select(pl.col(names).null_count()).transpose(include_header=True, column_names=["null"])
    share = float(nulls["null"].sum()) / max(1, newest.height * len(names))
    return [
        result(
            table, "features_are_finite", not infinite, metadata={"not_finite": str(infinite) if infinite else "none"}
        ),
        result(
            table,
            "every_bar_has_features",
            missing.is_empty() and extra == 0,
            metadata={"bars": keys.height, "rows": stored.height, "missing": missing.height},
        ),
        result(
            table,
            "features_are_known",
            share <= 0.2,
            severity=WARN,
            metadata={
                "null_share_newest_session": share,
                "most_often_null": dg.MetadataValue.md(
                    markdown_table(nulls.filter(pl.col("null") > 0).sort("null", descending=True).head(10))
                ),
            },
        ),
    ]
