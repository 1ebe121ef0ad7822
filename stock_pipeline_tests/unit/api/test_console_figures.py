"""Figures on pages: their names, and the same unit as on the command line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from stock_pipeline.api.console.figures import named, written
from stock_pipeline.api.console.formatting import figure, utc

pytestmark = pytest.mark.requirement("A1", "A4")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rank_ic_t", "Rank IC t"),
        ("always_up_hit_rate", "Always up hit rate"),
        ("var_95", "VaR 95 %"),
        ("es_99", "ES 99 %"),
        ("long_short_net_bps", "Long short net"),
        ("zero_rmse", "Zero RMSE"),
        ("deflated_sharpe", "Deflated Sharpe"),
    ],
)
def test_names_are_those_that_people_use(name: str, words: str) -> None:
    assert named(name) == words


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("hit_rate", 0.5394, "53.94 %"),
        ("max_drawdown", -0.3992, "−39.92 %"),
        ("deflated_sharpe", 0.9981, "99.81 %"),
        ("long_short_net_bps", 24.7, "24.7 bp"),
        ("final_equity", 71_827_744.05, "71,827,744 USD"),
        ("sharpe", 1.102, "1.102"),
        ("symbols", 8.0, "8"),
        ("hit_rate", None, "–"),
        ("final_equity", None, "–"),
    ],
)
def test_a_figure_is_written_with_its_unit(name: str, value: Any, text: str) -> None:
    assert written(value, name, "USD") == text


def test_a_count_that_is_stored_as_a_fraction_is_written_as_a_count() -> None:
    assert [figure(value) for value in (6.0, 756.0, 0.5, float("nan"))] == ["6", "756", "0.5000", "–"]


def test_clocks_are_those_of_utc() -> None:
    there = datetime(2026, 5, 4, 23, 30, tzinfo=timezone(timedelta(hours=-4)))
    assert f"{utc(there):%Y-%m-%d %H:%M}" == "2026-05-05 03:30"
