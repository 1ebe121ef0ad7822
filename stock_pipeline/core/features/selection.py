"""Fitting a feature set to the data at hand, and describing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import polars as pl

from stock_pipeline.core.errors import ConfigurationError, DataError
from stock_pipeline.core.features import registry
from stock_pipeline.core.features.definition import FeatureSet
from stock_pipeline.core.features.panel import INPUTS


def columns_with_data(bars: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns out of `INPUTS` that ``bars`` has with at least one value (any, when it has no rows)."""
    present = [c for c in INPUTS if c in bars.columns]
    return tuple(c for c in present if bars.is_empty() or bars[c].null_count() < bars.height)


def available(fs: FeatureSet, columns: Iterable[str]) -> FeatureSet:
    """Keep the features whose inputs are all among ``columns`` (e.g. ``columns_with_data(bars)``).

    Raises
    ------
    ConfigurationError
        When no feature can be computed.
    """
    given = set(columns)
    kept = tuple(f for f in fs.features if given.issuperset(f.inputs))
    if not kept:
        raise ConfigurationError(
            f"No feature of {fs.name!r} can be computed from these columns",
            value=sorted(given),
            allowed=f"columns out of {', '.join(fs.inputs)}",
        )
    return replace(fs, features=kept)


def check_inputs(bars: pl.DataFrame, fs: FeatureSet) -> None:
    """Raise unless ``bars`` has the keys, ``adj_factor`` and every column that the features need.

    Raises
    ------
    DataError
        When a key or ``adj_factor`` is missing, or ``adj_factor`` is wholly null.
    ConfigurationError
        When a needed column is missing or wholly null, naming it and the features that need it.
    """
    for key in ("symbol", "session", "adj_factor"):
        if key not in bars.columns:
            raise DataError(
                "Bars lack a column", value=key, allowed=f"symbol, session, adj_factor, {', '.join(fs.inputs)}"
            )
    if bars.height and bars["adj_factor"].null_count() == bars.height:
        raise DataError(
            "Column 'adj_factor' of the bars holds no values",
            fix="make factors with core.market.corporate_actions, or set 1.0 where prices are adjusted already",
        )
    given = columns_with_data(bars)
    for column in fs.inputs:
        if column not in given:
            needing = [f.name for f in fs.features if column in f.inputs]
            kind = "holds no values" if column in bars.columns else "is missing"
            raise ConfigurationError(
                f"Column {column!r} {kind}, which feature {needing[0]!r}"
                + (f" and {len(needing) - 1} more need" if len(needing) > 1 else " needs"),
                value=needing if len(needing) <= 5 else [*needing[:5], "..."],
                fix=f"supply {column!r}, or exclude these features: exclude: [{', '.join(needing)}]",
            )


def describe(fs: FeatureSet) -> pl.DataFrame:
    """Return one row a feature, for a reference page or a table's column descriptions.

    Returns
    -------
    polars.DataFrame
        ``name, sets, description, source, inputs, lookback, kind, version``, in column order; ``kind`` is ``symbol``,
        ``cross-sectional rank`` or ``cross-sectional zscore``; lists are joined by ", ".
    """
    members = registry.sets()
    return pl.DataFrame(
        {
            "name": f.name,
            "sets": ", ".join(s for s, features in members.items() if f.name in features),
            "description": f.description,
            "source": f.source,
            "inputs": ", ".join(f.inputs),
            "lookback": f.lookback,
            "kind": f"cross-sectional {f.cross_section}" if f.cross_section else "symbol",
            "version": f.version,
        }
        for f in fs.features
    )
