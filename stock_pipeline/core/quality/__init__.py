"""Bars as data: rules, outlier detection, the split into clean, repaired and quarantined rows, and scores.

What does not belong here: the exchange calendars and the making of adjustment factors (``core.market``), features,
and pictures of the quality (``core.reporting.quality``).
"""

from __future__ import annotations

from stock_pipeline.core.quality.history import short_histories
from stock_pipeline.core.quality.registry import FINDINGS_SCHEMA, Rule, all_rules
from stock_pipeline.core.quality.settings import QualityRules, ScoreWeights
from stock_pipeline.core.quality.user_rules import UserRule
from stock_pipeline.core.quality.validate import SCORES_SCHEMA, QualityResult, validate_bars

__all__ = [
    "FINDINGS_SCHEMA",
    "SCORES_SCHEMA",
    "QualityResult",
    "QualityRules",
    "Rule",
    "ScoreWeights",
    "UserRule",
    "all_rules",
    "short_histories",
    "validate_bars",
]
