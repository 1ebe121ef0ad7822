"""The thresholds of all rules, the weights of the score, and the look-back that they need together.

What does not belong here: the rules themselves (``rules_values``, ``rules_bars``, ``rules_series``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.quality.user_rules import UserRule

Action = Literal["quarantine", "repair", "warn", "off"]

STALE_GAP = 3
"""Sessions between two identical bars that still count as one stale run."""


class ScoreWeights(Parameters):
    """Weights of the four parts of the quality score; only their proportions matter."""

    validity: float = Field(default=0.50, ge=0, description="clean 1, repaired less by 0.25 a field, quarantined 0")
    completeness: float = Field(
        default=0.25, ge=0, description="share of sessions present, times share of fields present"
    )
    consistency: float = Field(default=0.15, ge=0, description="1 less 0.25 for every warning on the row")
    timeliness: float = Field(
        default=0.10, ge=0, description="1 when learnt in time, falling to 0; not judged for backfills"
    )


class QualityRules(Parameters):
    """Thresholds of the validation; every window is counted in sessions of the calendar.

    The defaults were set on real panels of the US, India and China, so that real crashes and earnings moves pass.
    """

    gap_sessions: int = Field(
        default=20, ge=2, le=260, description="rows further apart than this are not compared: the series starts anew"
    )
    scale_sessions: int = Field(
        default=60, ge=20, le=520, description="window of the robust scale of returns and volume"
    )
    scale_minimum: int = Field(default=20, ge=5, le=520, description="returns needed for a robust scale")
    default_scale: float = Field(
        default=0.03, gt=0, lt=1, description="daily scale of log returns while history is short"
    )
    jump_scales: float = Field(default=10.0, ge=4, le=100, description="a jump is more than so many robust scales")
    jump_floor: float = Field(
        default=0.25, gt=0, le=3, description="and more than this log return (0.25: +28 % or -22 %)"
    )
    jump_floor_no_volume: float = Field(default=0.5, gt=0, le=3, description="the floor where the vendor has no volume")
    event_volume: float = Field(
        default=3.0,
        ge=1,
        le=100,
        description="a jump at the floor is believed when volume is so many times its median; larger jumps need more",
    )
    walk_hole: float = Field(
        default=0.10,
        ge=0,
        le=1,
        description="a jump is believed when the day's range comes this near (log) to the price before",
    )
    walk_limit: float = Field(default=1.1, ge=0, le=5, description="but not for log returns beyond this")
    level_rows: int = Field(default=6, ge=2, le=20, description="earlier rows whose level a price may return to")
    unit_factor: float = Field(
        default=30.0, ge=5, le=1000, description="close over or under its recent median by this factor"
    )
    unit_sessions: int = Field(
        default=20, ge=3, le=260, description="window of the recent median for unit jumps and currency"
    )
    extreme_scales: float = Field(
        default=8.0, ge=3, le=100, description="accepted returns beyond so many scales are reported"
    )
    extreme_floor: float = Field(default=0.10, gt=0, le=3, description="and only beyond this log return")
    range_scales: float = Field(
        default=30.0, ge=5, le=500, description="high or low this many scales beyond open and close"
    )
    range_floor: float = Field(default=0.40, gt=0, le=3, description="and by more than this log distance")
    ohlc_rounding: float = Field(
        default=0.001, ge=0, le=0.05, description="relative violation of the bar explained by rounding"
    )
    ohlc_small: float = Field(
        default=0.02, gt=0, le=0.5, description="relative violation that is clipped, not mistrusted"
    )
    mixed_sessions: int = Field(default=10, ge=2, le=260, description="window in which repeated violations are counted")
    mixed_count: int = Field(
        default=3, ge=1, le=260, description="violations in that window that mean mixed price scales"
    )
    stale_rows: int = Field(default=5, ge=3, le=60, description="identical bars in a row that are stale")
    stale_rows_close_only: int = Field(default=10, ge=3, le=60, description="the same where there is only a close")
    volume_scales: float = Field(
        default=8.0, ge=3, le=100, description="log volume this many robust scales from its median"
    )
    repair_sessions: int = Field(default=20, ge=5, le=260, description="window of the statistics that repairs use")
    repair_minimum: int = Field(default=10, ge=3, le=260, description="observations needed in that window")
    late_days: float = Field(default=3.0, ge=0, le=60, description="a row learnt within so many days is in time")
    backfill_days: float = Field(
        default=30.0, gt=0, le=3650, description="a row learnt later than this is a backfill: not judged"
    )
    weights: ScoreWeights = Field(default=ScoreWeights())
    actions: dict[str, Action] = Field(
        default_factory=dict, description="change what a rule does: {rule name: quarantine | repair | warn | off}"
    )
    user_rules: tuple[UserRule, ...] = Field(default=(), description="rules of your own")

    @field_validator("actions")
    @classmethod
    def _known_actions(cls, actions: dict[str, Action]) -> dict[str, Action]:
        from stock_pipeline.core.quality.registry import all_rules

        rules = all_rules()
        for name, action in actions.items():
            if name not in rules:
                raise ConfigurationError("quality.actions names no rule", value=name, allowed=", ".join(sorted(rules)))
            if action not in rules[name].allowed_actions:
                raise ConfigurationError(
                    f"quality.actions.{name} cannot be this",
                    value=action,
                    allowed=", ".join(rules[name].allowed_actions),
                )
        return actions

    @field_validator("user_rules")
    @classmethod
    def _distinct_names(cls, rules: tuple[UserRule, ...]) -> tuple[UserRule, ...]:
        from stock_pipeline.core.quality.registry import all_rules

        names = [rule.name for rule in rules]
        for name in names:
            if names.count(name) > 1 or name in all_rules():
                raise ConfigurationError(
                    "quality.user_rules has a name that is taken", value=name, allowed="a name of its own for each rule"
                )
        return rules

    @property
    def lookback(self) -> int:
        """Sessions before the first emitted one that fix its result completely.

        The longest chain is: the row before (``gap_sessions`` away), an earlier level that it may have returned to
        (again), that row's robust scale (``scale_sessions``) of returns, each with its previous row (again), of which
        it must be known whether it was a suspension (again).
        """
        jump = 3 * self.gap_sessions + self.scale_sessions
        volume = 2 * self.scale_sessions
        stale = STALE_GAP * max(self.stale_rows, self.stale_rows_close_only)
        windows = self.gap_sessions + max(self.unit_sessions, self.repair_sessions, self.mixed_sessions)
        return max(jump, volume, stale, windows) + self.gap_sessions + 1
