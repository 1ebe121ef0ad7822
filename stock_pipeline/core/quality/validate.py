"""The split of raw bars into clean, repaired and quarantined rows: every input row ends in exactly one of them.

The order of the work: form, order and calendar; rules that make a row unfit for comparison; duplicates; the past of
the remaining trading rows; all other rules; users' rules; repairs; scores. Night by night and all history at once
give the same bits, because a row sees at most `QualityRules.lookback` sessions before itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import polars as pl

from stock_pipeline.core.market.bars import QUARANTINED_SCHEMA, VALIDATED_SCHEMA
from stock_pipeline.core.quality.caught import Caught
from stock_pipeline.core.quality.prepare import (
    clean_values,
    mark_duplicates,
    mark_suspensions,
    ordered,
    place_in_calendar,
    with_presence,
)
from stock_pipeline.core.quality.registry import all_rules
from stock_pipeline.core.quality.repair import repair
from stock_pipeline.core.quality.rules_bars import CLOSE
from stock_pipeline.core.quality.rules_values import HARD
from stock_pipeline.core.quality.schema import conform
from stock_pipeline.core.quality.scores import row_scores
from stock_pipeline.core.quality.series import CONTEXT, series_context
from stock_pipeline.core.quality.settings import QualityRules
from stock_pipeline.core.quality.shape import with_shape

SCORES_SCHEMA: dict[str, pl.DataType] = {"symbol": pl.String(), "session": pl.Date(), "score": pl.Float64()}


BATCH_ROWS = 2_000_000
"""Rows that are judged at once; about 0.8 GB for each million."""


@dataclass(frozen=True)
class QualityResult:
    """What became of the rows.

    Parameters
    ----------
    validated
        Clean and repaired bars (``VALIDATED_SCHEMA``), sorted by symbol and session, one row for each.
    quarantined
        Bars that must not be used, as they came (``QUARANTINED_SCHEMA``).
    findings
        One row for each rule that caught a bar (``FINDINGS_SCHEMA``).
    scores
        Score of each symbol and session (``SCORES_SCHEMA``).
    """

    validated: pl.DataFrame
    quarantined: pl.DataFrame
    findings: pl.DataFrame
    scores: pl.DataFrame

    def summary(self) -> dict[str, float | int]:
        """Count rows by fate and give the mean score (0 where there is no row)."""
        repaired = int((self.validated["status"] == "repaired").sum())
        mean = self.scores["score"].mean()
        return {
            "rows": self.validated.height + self.quarantined.height,
            "clean": self.validated.height - repaired,
            "repaired": repaired,
            "quarantined": self.quarantined.height,
            "findings": self.findings.height,
            "mean_score": float(mean) if isinstance(mean, int | float) else 0.0,
        }


def validate_bars(
    raw: pl.DataFrame, *, sessions: list[date], rules: QualityRules, emit_from: date | None = None
) -> QualityResult:
    """Judge every row of raw bars.

    Parameters
    ----------
    raw
        Bars as they came, any order, duplicates included (see `schema.conform` for the accepted columns).
    sessions
        Sessions of the exchange calendar over all rows, look-back included; the last is the last closed session.
    rules
        Thresholds and users' rules.
    emit_from
        Give only rows from this session on (and rows without a session); earlier rows serve as look-back. With at
        least ``rules.lookback`` sessions before it the result equals that of all history.

    Returns
    -------
    QualityResult
        Each input row (from ``emit_from`` on) stands in exactly one of ``validated`` and ``quarantined``.

    Raises
    ------
    DataError
        For absent or wrongly typed columns, or no sessions.
    """
    results = [_validate(batch, sessions, rules, emit_from) for batch in _batches(conform(raw))]
    if len(results) == 1:
        return results[0]
    return QualityResult(
        validated=pl.concat([result.validated for result in results]),
        quarantined=pl.concat([result.quarantined for result in results]),
        findings=pl.concat([result.findings for result in results]),
        scores=pl.concat([result.scores for result in results]),
    )


def _batches(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut a large frame into groups of whole symbols, in their order: symbols are independent, and memory is finite."""
    if frame.height <= BATCH_ROWS:
        yield frame
        return
    groups = frame.group_by("symbol").len().sort("symbol")
    groups = groups.select("symbol", _batch=(pl.col("len").cum_sum() - 1) // BATCH_ROWS)
    for number in groups["_batch"].unique().sort():
        members = groups.filter(pl.col("_batch") == number).select("symbol")
        yield frame.join(members, on="symbol", how="semi", nulls_equal=True, maintain_order="left")


def _validate(
    conformed: pl.DataFrame, sessions: list[date], rules: QualityRules, emit_from: date | None
) -> QualityResult:
    frame = place_in_calendar(ordered(conformed), sessions)
    frame = with_shape(clean_values(frame), rules)
    usable = ~pl.any_horizontal(*[rule.when(rules).fill_null(False) for rule in (*HARD, CLOSE)])
    frame = mark_duplicates(with_presence(frame, rules).with_columns(_usable=usable))
    frame = mark_suspensions(frame, rules)
    trading = frame.filter(pl.col("_usable") & pl.col("_duplicate").is_null() & ~pl.col("_suspended"))
    context = series_context(trading, rules)
    trading = trading.hstack(context.drop("_row"))
    # Boolean context is false where a row has none.
    flags = [name for name in CONTEXT if context.schema[name] == pl.Boolean]
    frame = frame.join(context, on="_row", how="left", maintain_order="left")
    frame = frame.with_columns(pl.col(flags).fill_null(False))
    if emit_from is not None:
        frame = frame.filter((pl.col("session") >= emit_from).fill_null(True))
    caught = Caught.of(frame, rules)
    frame = frame.with_columns(_accepted=~caught.any_of("quarantine", frame.height), _warnings=caught.warnings(frame))
    frame = _repaired(frame, trading, caught, rules)
    frame = frame.with_columns(_score=row_scores(rules))
    return QualityResult(
        validated=_validated(frame),
        quarantined=_quarantined(frame, caught),
        findings=caught.findings(frame),
        scores=_scores(frame),
    )


def _repaired(frame: pl.DataFrame, trading: pl.DataFrame, caught: Caught, rules: QualityRules) -> pl.DataFrame:
    names = [name for name, rule in all_rules().items() if rule.severity == "repair"]
    wanted = caught.any_of("repair", frame.height) & frame["_accepted"]
    if not wanted.any():
        return frame.with_columns(
            _repairs=pl.lit(None, dtype=pl.String),
            _repaired_fields=pl.lit(0, dtype=pl.Int64),
            **{f"+{name}": pl.col(name) for name in _REPAIRABLE},
        )
    flags = caught.hits.select(pl.col(name).alias(f"?{name}") for name in names)
    rows = repair(frame.hstack(flags).filter(wanted), trading, rules)
    rows = rows.rename({name: f"+{name}" for name in _REPAIRABLE}).with_columns(_done=pl.lit(True))
    frame = frame.join(rows, on="_row", how="left", maintain_order="left")
    return frame.with_columns(
        pl.when(pl.col("_done")).then(pl.col(f"+{name}")).otherwise(pl.col(name)).alias(f"+{name}")
        for name in _REPAIRABLE
    )


_REPAIRABLE = ("open", "high", "low", "volume", "amount")


def _validated(frame: pl.DataFrame) -> pl.DataFrame:
    repaired = pl.col("_repairs").is_not_null()
    return (
        frame.filter("_accepted")
        .with_columns(
            *[pl.col(f"+{name}").alias(name) for name in _REPAIRABLE],
            status=pl.when(repaired).then(pl.lit("repaired")).otherwise(pl.lit("clean")),
            repairs=pl.col("_repairs"),
            quality_score=pl.col("_score"),
        )
        .select(VALIDATED_SCHEMA.keys())
    )


def _quarantined(frame: pl.DataFrame, caught: Caught) -> pl.DataFrame:
    bad = frame.filter(~pl.col("_accepted"))
    bad = bad.join(caught.messages(frame), on="_row", how="left", maintain_order="left")
    return bad.select(QUARANTINED_SCHEMA.keys())


def _scores(frame: pl.DataFrame) -> pl.DataFrame:
    keyed = frame.filter(pl.col("symbol").is_not_null() & pl.col("session").is_not_null())
    keyed = keyed.select("symbol", "session", "_accepted", "_score")
    if keyed.height == 0 or not keyed.select(pl.struct("symbol", "session").is_duplicated().any()).item():
        return keyed.select("symbol", "session", score=pl.col("_score"))
    best = keyed.sort("symbol", "session", "_accepted", "_score", descending=[False, False, True, True])
    return best.unique(["symbol", "session"], keep="first", maintain_order=True).select(
        "symbol", "session", score=pl.col("_score")
    )
