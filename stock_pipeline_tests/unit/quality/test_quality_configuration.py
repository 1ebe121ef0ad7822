"""Users' rules, actions and thresholds: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.quality import QualityRules, UserRule, all_rules, validate_bars
from stock_pipeline_tests.unit.quality.quality_bars import corrupt, sample_bars, sessions_of

pytestmark = pytest.mark.requirement("R7.1")


def judge(raw: pl.DataFrame, **settings: Any) -> Any:
    return validate_bars(raw, sessions=sessions_of(sample_bars()), rules=QualityRules.model_validate(settings))


def test_a_rule_from_configuration_quarantines_with_its_message() -> None:
    rule = {"name": "dear_stock", "when": "close > 450 AND symbol <> 'AAPL'", "action": "quarantine", "message": "Dear"}
    bars = sample_bars()
    result = judge(bars, user_rules=[rule])
    expected = bars.filter((pl.col("close") > 450) & (pl.col("symbol") != "AAPL"))
    assert result.quarantined["amount"].to_list() == expected["amount"].to_list()
    assert expected.height > 0
    assert set(result.quarantined["reason"]) == {"Dear"}


def test_a_rule_may_look_at_the_row_before_and_only_warn() -> None:
    rule = {"name": "big_move", "when": "ABS(return_1) > 0.15 OR volume_ratio > 8", "action": "warn"}
    result = judge(sample_bars(), user_rules=[rule])
    found = result.findings.filter(pl.col("rule") == "big_move")
    assert found.height > 0
    assert result.quarantined.is_empty()
    assert found["message"][0].startswith("caught by big_move")


@pytest.mark.parametrize(
    ("when", "word"),
    [
        ("closing < 1", "closing"),
        ("close < AVG(close)", "AVG"),
        ("close < LAG(close) ", "LAG"),
        ("close < (SELECT 1)", "SELECT"),
        ("symbol IN read_csv('x.csv')", "read_csv"),
        ("close < 1; close > 2", ";"),
        ('"close" < 1', '"'),
        ("_far", "_far"),
    ],
)
def test_words_outside_the_list_are_refused_by_name(when: str, word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        UserRule(name="mine", when=when)
    message = str(caught.value)
    assert "quality.user_rules.mine.when" in message
    assert repr(word) in message or repr(word[0]) in message
    assert "allowed" in message


@pytest.mark.parametrize("when", ["close + 1", "close <", "symbol > 1 AND", "ABS(close, 1, 2) < 1"])
def test_what_is_no_condition_is_refused(when: str) -> None:
    with pytest.raises(ConfigurationError, match=r"quality\.user_rules\.mine\.when"):
        UserRule(name="mine", when=when)


def test_names_and_actions_are_checked() -> None:
    rule = {"name": "mine", "when": "close < 1"}
    with pytest.raises(ConfigurationError, match=r"taken.*mine"):
        QualityRules.model_validate({"user_rules": [rule, rule]})
    with pytest.raises(ConfigurationError, match=r"taken.*stale_run"):
        QualityRules.model_validate({"user_rules": [rule | {"name": "stale_run"}]})
    with pytest.raises(ConfigurationError, match=r"no rule.*stale_runs"):
        QualityRules.model_validate({"actions": {"stale_runs": "off"}})
    with pytest.raises(ConfigurationError, match=r"actions\.missing_close.*'off'.*quarantine"):
        QualityRules.model_validate({"actions": {"missing_close": "off"}})
    with pytest.raises(ValidationError, match="jump_scales"):
        QualityRules.model_validate({"jump_scales": -1})


def test_actions_change_what_a_rule_does() -> None:
    raw = corrupt(sample_bars(), {100: "half", 200: "rounding"})
    usual = judge(raw)
    assert usual.quarantined["amount"].to_list() == [100]
    soft = judge(raw, actions={"split_like_jump": "warn", "unconfirmed_jump": "warn", "ohlc_rounding": "quarantine"})
    assert soft.quarantined["amount"].to_list() == [200]
    assert "warn" in soft.findings.filter(pl.col("rule") == "split_like_jump")["severity"].to_list()
    off = judge(raw, actions={"split_like_jump": "off", "unconfirmed_jump": "off"})
    assert off.quarantined.is_empty()


def test_every_rule_explains_itself_and_names_real_settings() -> None:
    for name, rule in all_rules().items():
        assert rule.name == name
        assert rule.description.endswith(".")
        assert rule.remedy.endswith(".")
        assert set(rule.parameters) <= set(QualityRules.model_fields)
