"""What all asset specifications share: owner, group from the key, kinds, descriptions, freshness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from stock_pipeline.orchestration.columns import COLUMNS, SCHEMAS
from stock_pipeline.orchestration.metadata import column_schema

__all__ = ["COLUMNS", "key", "spec"]


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
    schema = schema if schema is not None else SCHEMAS.get(name)
    if schema is not None:
        metadata["dagster/column_schema"] = column_schema(schema, {**COLUMNS, **(columns or {})})
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
