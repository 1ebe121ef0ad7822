"""The split of raw bars into clean, repaired and quarantined rows: every input row ends in exactly one of them.

The order of the work: form, order and calendar; rules that make a row unfit for comparison; duplicates; the past of
the remaining trading rows; all other rules; users' rules; repairs; scores. Night by night and all history at once
give the same bits, because a row sees at most `QualityRules.lookback` sessions before itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from stock_pipeline.core.market.bars import BAR_SCHEMA, QUARANTINED_SCHEMA, VALIDATED_SCHEMA
from stock_pipeline.core.quality import user_rules
from stock_pipeline.core.quality.prepare import (
    clean_values,
    mark_duplicates,
    mark_suspensions,
    ordered,
    place_in_calendar,
    with_presence,
)
from stock_pipeline.core.quality.registry import FINDINGS_SCHEMA, Rule, all_rules
from stock_pipeline.core.quality.repair import repair
from stock_pipeline.core.quality.rules_bars import CLOSE
from stock_pipeline.core.quality.rules_values import HARD
from stock_pipeline.core.quality.schema import conform
from stock_pipeline.core.quality.scores import row_scores
from stock_pipeline.core.quality.series import CONTEXT, series_context
from stock_pipeline.core.quality.settings import QualityRules
from stock_pipeline.core.quality.shape import with_shape

SCORES_SCHEMA: dict[str, pl.DataType] = {"symbol": pl.String(), "session": pl.Date(), "score": pl.Float64()}


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
    frame = place_in_calendar(ordered(conform(raw)), sessions)
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
    caught = _Caught.of(frame, rules)
    frame = frame.with_columns(_accepted=~caught.any_of("quarantine", frame.height), _warnings=caught.warnings(frame))
    frame = _repaired(frame, trading, caught, rules)
    frame = frame.with_columns(_score=row_scores(rules))
    return QualityResult(
        validated=_validated(frame),
        quarantined=_quarantined(frame, caught),
        findings=caught.findings(frame),
        scores=_scores(frame),
    )


@dataclass(frozen=True)
class _Caught:
    """Boolean columns of all active rules, with what each does."""

    hits: pl.DataFrame
    actions: dict[str, str]
    user: dict[str, user_rules.UserRule]

    @classmethod
    def of(cls, frame: pl.DataFrame, rules: QualityRules) -> _Caught:
        builtin = {name: rule for name, rule in all_rules().items() if rule.action(rules) != "off"}
        own = {rule.name: rule for rule in rules.user_rules}
        hits = frame.select(**{name: rule.when(rules).fill_null(False) for name, rule in builtin.items()})
        if own:
            inner = {name: pl.col(source).cast(pl.Float64) for name, (source, _) in user_rules.DERIVED.items()}
            view = frame.select(*BAR_SCHEMA, **inner)
            mine = view.select(**{name: user_rules.condition(rule).fill_null(False) for name, rule in own.items()})
            hits = hits.hstack(mine)
        actions = {name: rule.action(rules) for name, rule in builtin.items()}
        return cls(hits, actions | {name: rule.action for name, rule in own.items()}, own)

    def any_of(self, action: str, height: int) -> pl.Series:
        """Whether a rule with this action caught the row."""
        names = [name for name, does in self.actions.items() if does == action]
        return self.hits.select(pl.any_horizontal(names)).to_series() if names else pl.Series([False] * height)

    def warnings(self, frame: pl.DataFrame) -> pl.Series:
        """Number of warnings on each row; the start of a history is not held against it."""
        names = [n for n, does in self.actions.items() if does == "warn" and n != "short_history"]
        if not names:
            return pl.zeros(frame.height, pl.Int64, eager=True)
        return self.hits.select(pl.sum_horizontal(*[pl.col(n).cast(pl.Int64) for n in names])).to_series()

    def findings(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One row for each hit; hits of repair rules only on accepted rows."""
        parts = [self._of_rule(frame, name) for name in self.actions]
        found = pl.concat([part for part in parts if part is not None] or [pl.DataFrame(schema=_FOUND_SCHEMA)])
        order = {name: number for number, name in enumerate(self.actions)}
        rank = pl.col("rule").replace_strict(order, return_dtype=pl.Int64)
        return found.sort("_row", rank).select(FINDINGS_SCHEMA.keys())

    def messages(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rule names and reasons of quarantined rows, by ``_row``."""
        parts = [self._of_rule(frame, name) for name, does in self.actions.items() if does == "quarantine"]
        found = pl.concat([part for part in parts if part is not None] or [pl.DataFrame(schema=_FOUND_SCHEMA)])
        grouped = found.group_by("_row", maintain_order=True).agg(rules=pl.col("rule"), reason=pl.col("message"))
        return grouped.with_columns(pl.col("reason").list.join("; "))

    def _of_rule(self, frame: pl.DataFrame, name: str) -> pl.DataFrame | None:
        mask = self.hits[name]
        if self.actions[name] == "repair":
            mask = mask & frame["_accepted"]
        if not mask.any():
            return None
        rule: Rule | None = None if name in self.user else all_rules()[name]
        field: pl.Expr | str = "close" if rule is None else rule.field
        message = pl.lit(self.user[name].reason) if rule is None else rule.message
        absent = pl.lit(None, dtype=pl.Float64)
        return frame.filter(mask).select(
            "_row",
            "symbol",
            "session",
            rule=pl.lit(name),
            severity=pl.lit(self.actions[name]),
            field=pl.lit(field) if isinstance(field, str) else field,
            value=(absent if rule is None or rule.value is None else rule.value).cast(pl.Float64),
            expected=(absent if rule is None or rule.expected is None else rule.expected).cast(pl.Float64),
            message=message,
        )


_FOUND_SCHEMA = {"_row": pl.UInt32(), **FINDINGS_SCHEMA}


def _repaired(frame: pl.DataFrame, trading: pl.DataFrame, caught: _Caught, rules: QualityRules) -> pl.DataFrame:
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


def _quarantined(frame: pl.DataFrame, caught: _Caught) -> pl.DataFrame:
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
