"""What all asset specifications share: owner, group from the key, kinds, descriptions, freshness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from stock_pipeline.orchestration.metadata import column_schema


def key(name: str) -> dg.AssetKey:
    """Asset key of a table name such as ``market/raw_bars``."""
    return dg.AssetKey(name.split("/"))


def spec(
    name: str,
    description: str,
    *,
    owner: str,
    deps: Sequence[str] = (),
    kinds: set[str] | None = None,
    schema: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    fresh_within: timedelta | None = None,
    whole: bool = False,
) -> dg.AssetSpec:
    """Build one asset specification; the group is the first part of the name.

    `whole` says that every partition of what it depends on is read: for partitions by name below ones by year.
    """
    metadata: dict[str, Any] = {"lake_table": name}
    mapping = dg.AllPartitionMapping() if whole else None
    if schema is not None:
        metadata["dagster/column_schema"] = column_schema(schema, columns)
    return dg.AssetSpec(
        key(name),
        deps=[dg.AssetDep(key(dep), partition_mapping=mapping) for dep in deps],
        description=description,
        owners=[owner],
        group_name=name.split("/")[0],
        kinds=kinds or {"polars", "deltalake"},
        metadata=metadata,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=fresh_within) if fresh_within else None,
    )


COLUMNS: Mapping[str, str] = {
    "symbol": "vendor-neutral symbol",
    "session": "exchange date",
    "open": "opening price as traded, in currency",
    "high": "highest price as traded, in currency",
    "low": "lowest price as traded, in currency",
    "close": "closing price as traded, in currency",
    "volume": "shares traded",
    "amount": "value traded, in currency",
    "adj_factor": "adjusted price = raw x factor; 1 at the symbol's first bar",
    "currency": "ISO code of the prices' currency",
    "known_at": "UTC instant at which the row was learnt",
    "status": "clean or repaired",
    "repairs": "JSON list of repaired fields with rule, method and original value",
    "quality_score": "0 (unusable) to 100 (no finding)",
    "volatility": "annualised volatility, fraction a year",
    "var_95": "1-day value at risk at 95 %, positive fraction of the price",
    "var_99": "1-day value at risk at 99 %, positive fraction of the price",
    "es_95": "1-day expected shortfall at 95 %, positive fraction",
    "es_99": "1-day expected shortfall at 99 %, positive fraction",
    "drawdown": "loss from the highest close of 252 sessions, at most 0",
    "expected_return": "predicted return over the horizon, fraction",
    "lower": "lower end of the prediction interval, fraction",
    "upper": "upper end of the prediction interval, fraction",
    "confidence": "probability that the return has the predicted sign, from out-of-sample errors",
    "fallback_level": "0 champion, 1 previous champion, 2 naive baseline",
    "fallback_reason": "why a lower rung of the ladder was used",
}
"""Column descriptions, in one place for all tables."""
