"""All rules applied to prepared rows: who was caught by what, in columns and in words.

What does not belong here: what follows from it (``validate``), the rules themselves (``registry``).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.quality import user_rules
from stock_pipeline.core.quality.registry import FINDINGS_SCHEMA, Rule, all_rules
from stock_pipeline.core.quality.settings import QualityRules

_FOUND_SCHEMA = {"_row": pl.UInt32(), **FINDINGS_SCHEMA}


@dataclass(frozen=True)
class Caught:
    """Which rules caught which rows.

    Parameters
    ----------
    hits
        One boolean column for each active rule, rows as in the prepared frame.
    actions
        What each rule does, in the order in which reasons are listed.
    user
        The users' rules among them.
    """

    hits: pl.DataFrame
    actions: dict[str, str]
    user: dict[str, user_rules.UserRule]

    @classmethod
    def of(cls, frame: pl.DataFrame, rules: QualityRules) -> Caught:
        """Apply all active rules to a prepared frame."""
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
