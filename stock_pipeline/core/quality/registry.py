"""What a rule is, and the list of all rules.

What does not belong here: the conditions of the rules (``rules_values``, ``rules_bars``, ``rules_series``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from stock_pipeline.core.quality.settings import QualityRules

Severity = Literal["quarantine", "repair", "warn"]

FINDINGS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "rule": pl.String(),
    "severity": pl.String(),
    "field": pl.String(),
    "value": pl.Float64(),
    "expected": pl.Float64(),
    "message": pl.String(),
}
"""One row for each rule that caught a bar; ``expected`` is a limit or the value that was expected."""


@dataclass(frozen=True)
class Rule:
    """One named rule.

    Parameters
    ----------
    name
        Unique, lower case.
    severity
        What happens to a row that is caught: ``quarantine``, ``repair`` or ``warn``.
    description
        What the rule looks for.
    remedy
        What a person can do about it.
    when
        From the settings to a boolean expression on the prepared frame (null counts as not caught).
    message
        Expression of the sentence that people read, on caught rows.
    field
        The column that is meant, or an expression that finds it.
    value, expected
        Expressions of the numbers that go with the finding.
    parameters
        Names of the settings that the rule reads.
    fixed
        True where the rest of the validation relies on the rule, so that it cannot be softened.
    """

    name: str
    severity: Severity
    description: str
    remedy: str
    when: Callable[[QualityRules], pl.Expr]
    message: pl.Expr
    field: str | pl.Expr = "close"
    value: pl.Expr | None = None
    expected: pl.Expr | None = None
    parameters: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def allowed_actions(self) -> tuple[str, ...]:
        """The actions that configuration may choose for the rule."""
        if self.fixed:
            return ("quarantine",)
        return ("repair", "quarantine") if self.severity == "repair" else ("quarantine", "warn", "off")

    def action(self, rules: QualityRules) -> str:
        """What the rule does under these settings: ``quarantine``, ``repair``, ``warn`` or ``off``."""
        return rules.actions.get(self.name, self.severity)


@cache
def all_rules() -> dict[str, Rule]:
    """Every built-in rule by name, in the order in which reasons are listed."""
    from stock_pipeline.core.quality import rules_bars, rules_series, rules_values

    rules = [*rules_values.RULES, *rules_bars.RULES, *rules_series.RULES]
    return {rule.name: rule for rule in rules}
