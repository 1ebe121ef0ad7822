"""The quality score of each symbol and session.

    score = 100 * sum(w_i * c_i) / sum(w_i)

over the parts (weights in `ScoreWeights`):

validity
    1 for a clean row, less 0.25 for each repaired field (at least 0), 0 for a quarantined row.
completeness
    Share of the last 20 sessions that have a row, times the share of open, high, low and volume that are there among
    those that the vendor usually gives.
consistency
    1 less 0.25 for each warning (at least 0); several rows for one session count as a warning.
timeliness
    1 when the row was learnt within ``late_days`` of its session, falling in a straight line to 0 at
    ``backfill_days``. Left out (with its weight) when later than that, or unknown: a backfill says nothing about
    the punctuality of a source.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.quality.settings import QualityRules

_STEP = 0.25


def row_scores(rules: QualityRules) -> pl.Expr:
    """Score of a row.

    Parameters
    ----------
    rules
        Weights and limits.

    Returns
    -------
    polars.Expr
        Float64 in [0, 100], from ``_accepted``, ``_repaired_fields``, ``_warnings``, ``_present``, ``_copies``,
        ``known_at``, ``session`` and the fields of the bar.
    """
    weights = rules.weights
    validity = (
        pl.when(pl.col("_accepted")).then((1 - _STEP * pl.col("_repaired_fields").fill_null(0)).clip(0)).otherwise(0)
    )
    warnings = pl.col("_warnings").cast(pl.Float64) + (pl.col("_copies").fill_null(1) > 1).cast(pl.Float64)
    consistency = (1 - _STEP * warnings).clip(0, 1)
    completeness = pl.col("_present").fill_null(0.0) * _fields_present(rules)
    days = (pl.col("known_at").dt.date() - pl.col("session")).dt.total_days()
    late = 1 - (days - rules.late_days) / max(rules.backfill_days - rules.late_days, 1e-9)
    timeliness = pl.when(days <= rules.backfill_days).then(late.clip(0, 1))
    base = weights.validity * validity + weights.completeness * completeness + weights.consistency * consistency
    total = weights.validity + weights.completeness + weights.consistency
    judged = (base + weights.timeliness * timeliness) / max(total + weights.timeliness, 1e-12)
    return (100 * pl.coalesce(judged, base / max(total, 1e-12))).clip(0, 100)


def _fields_present(rules: QualityRules) -> pl.Expr:
    expected, there = [], []
    for name in ("open", "high", "low", "volume"):
        usual = (pl.col(f"_has_{name}") >= rules.repair_minimum).fill_null(False)
        expected.append(usual.cast(pl.Int64))
        there.append((usual & pl.col(f"_{name}").is_not_null()).cast(pl.Int64))
    wanted = pl.sum_horizontal(*expected)
    return pl.when(wanted == 0).then(1.0).otherwise(pl.sum_horizontal(*there) / wanted)
