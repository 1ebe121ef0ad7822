"""Auditing features: whether a definition keeps the promises on which everything downstream relies.

For users' own features above all: the platform's own pass these checks in its tests. An audit on real bars can show
that a feature cheats; it cannot prove that it never does.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.errors import LookAheadError
from stock_pipeline.core.features.definition import Feature, FeatureSet
from stock_pipeline.core.features.engine import compute

FINDINGS_SCHEMA: dict[str, pl.DataType] = {
    "feature": pl.String(),
    "check": pl.String(),
    "symbol": pl.String(),
    "session": pl.Date(),
    "expected": pl.Float32(),
    "found": pl.Float32(),
    "message": pl.String(),
}


def audit(bars: pl.DataFrame, fs: FeatureSet, *, cuts: int = 3) -> pl.DataFrame:
    """Compare each feature's values from all bars with its values from less, bit for bit.

    Parameters
    ----------
    bars
        As for `compute`; a few symbols with clearly more rows than ``fs.lookback`` show most.
    fs
        The features to check, each one alone.
    cuts
        Dates, spread evenly over the sessions, at which history is cut.

    Returns
    -------
    polars.DataFrame
        One row for each broken promise with its first offending value (`FINDINGS_SCHEMA`); no rows when all are kept.
        ``check`` is ``look_ahead`` (a value changes when later sessions are removed), ``lookback`` (when rows older
        than the declared look-back are removed) or ``other_symbols`` (when other symbols are removed; not asked of
        cross-sectional features).

    Raises
    ------
    ConfigurationError
        When a feature uses a column that it does not declare, or fails.
    """
    sessions = bars["session"].unique().sort()
    dates = [sessions[len(sessions) * (k + 1) // (cuts + 1)] for k in range(cuts)] if len(sessions) else []
    symbols = bars["symbol"].unique().sort().to_list()
    findings = []
    for feature in fs.features:
        alone = FeatureSet(feature.name, (feature,))
        full = compute(bars, alone)
        trials: list[tuple[str, pl.DataFrame, str]] = []
        for day in dates:
            seen = compute(bars.filter(pl.col("session") <= day), alone)
            trials.append(("look_ahead", seen, f"changes when the sessions after {day} are removed"))
            message = f"changes when only {feature.lookback} rows before {day} are given"
            trials.append(("lookback", compute(bars, alone, day), message))
        if feature.cross_section is None:
            for symbol in dict.fromkeys([*symbols[:1], *symbols[-1:]]):
                own = compute(bars.filter(pl.col("symbol") == symbol), alone)
                trials.append(("other_symbols", own, f"changes when {symbol} stands alone"))
        findings.extend(_first_of_each_check(feature, full, trials))
    return pl.DataFrame(findings, schema=FINDINGS_SCHEMA, orient="row")


def refuse_look_ahead(bars: pl.DataFrame, fs: FeatureSet) -> None:
    """Audit, and raise when a feature uses the future or more than it declares.

    Raises
    ------
    LookAheadError
        Naming the first broken promise.
    """
    findings = audit(bars, fs)
    if findings.height:
        row = findings.row(0, named=True)
        raise LookAheadError(
            f"Feature {row['feature']!r} {row['message']}",
            value=f"{row['expected']} became {row['found']} for {row['symbol']} on {row['session']}",
            fix="compute each value from its own window only, and declare the window's length as lookback",
        )


def _first_of_each_check(
    feature: Feature, full: pl.DataFrame, trials: list[tuple[str, pl.DataFrame, str]]
) -> list[tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for check, part, message in trials:
        if check in found:
            continue
        both = part.join(full, on=["symbol", "session"], how="left", suffix="_full", maintain_order="left")
        given, expected = both[feature.name], both[f"{feature.name}_full"]
        wrong = np.flatnonzero(_bits(given) != _bits(expected))
        if len(wrong):
            k = int(wrong[0])
            found[check] = (
                feature.name,
                check,
                both["symbol"][k],
                both["session"][k],
                expected[k],
                given[k],
                message,
            )
    return list(found.values())


def _bits(values: pl.Series) -> NDArray[np.uint64]:
    """The float's bits, and 2**32 where null."""
    bits = np.ascontiguousarray(values.to_numpy()).view(np.uint32).astype(np.uint64)
    bits[values.is_null().to_numpy()] = 2**32
    return bits
