"""Short forms for check specifications and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def spec(asset: str, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """Declare one check of an asset; a blocking one stops everything downstream in the same run."""
    return dg.AssetCheckSpec(name, asset=asset.split("/"), description=description, blocking=blocking)


def result(
    asset: str,
    name: str,
    passed: bool,
    *,
    severity: dg.AssetCheckSeverity = ERROR,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Build the verdict of one check."""
    return dg.AssetCheckResult(
        passed=bool(passed),
        check_name=name,
        asset_key=asset.split("/"),
        severity=severity,
        description=description,
        metadata=dict(metadata or {}),
    )
