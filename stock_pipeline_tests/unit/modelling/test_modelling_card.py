from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from stock_pipeline.core.modelling import families
from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.promotion import decide
from stock_pipeline.core.modelling.training import train_walk_forward
from stock_pipeline.core.reporting.model_card import ModelCard, model_card, verdict
from stock_pipeline_tests.unit.modelling import modelling_data
from stock_pipeline_tests.unit.modelling.modelling_data import FEATURES, SETTINGS


def train(family: str):
    return train_walk_forward(modelling_data.data(), feature_names=FEATURES, family=family, settings=SETTINGS, seed=1)


@pytest.fixture(scope="module")
def made() -> tuple:
    baselines = {name: train(name).oos for name in families.BASELINES}
    result = train("ridge")
    decision = decide(result.oos, None, baselines)
    card = model_card(
        result,
        baselines,
        market="US <test>",
        feature_set="simple",
        feature_set_hash="abcdef0123456789",
        data_version={"features/simple": 4},
        code_version="1.2.3",
        decision=decision,
        trials=7,
    )
    return card, result, decision


@pytest.mark.requirement("R4.4")
def test_the_card_tells_where_the_model_comes_from_and_how_good_it_is(made):
    card, result, decision = made
    figures = evaluate(result.oos, horizon=5)
    for part in (
        "ridge",
        "features/simple version 4",
        "1.2.3",
        "abcdef012345",
        str(result.trained_through),
        "| Models or parameter sets tried | 7 |",
        f"{figures['rank_ic']:.4f}",
        f"{figures['always_up_hit_rate']:.1%}",
        "baseline: momentum",
        "baseline: zero",
        "final model, hold-out",
        "no investment advice",
    ):
        assert part in card.markdown
    for reason in decision.reasons:
        assert reason in card.markdown
    for year in result.oos["session"].dt.year().unique():
        assert f"| {year} |" in card.markdown


def test_the_page_is_well_formed_escaped_and_needs_nothing_from_elsewhere(made):
    card: ModelCard = made[0]
    assert "US &lt;test&gt;" in card.html
    assert "<test>" not in card.html
    assert not re.search(r'(src|href)="', card.html)
    assert "<script" not in card.html
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "rect", "line", "polyline"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("rect", "line", "polyline"):
                assert open_tags.pop() == tag

    Checker().feed(card.html)
    assert open_tags == []


def test_every_figure_that_the_markdown_names_is_there_and_is_valid(made):
    card: ModelCard = made[0]
    named = set(re.findall(r"\]\((\w+)\.svg\)", card.markdown))
    assert named == set(card.figures) == {"ic_cumulative", "ic_by_year", "calibration", "importance"}
    for svg in card.figures.values():
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "nan" not in svg


def test_the_verdict_does_not_flatter():
    figures = {"rank_ic": 0.01, "rank_ic_t": 1.2, "sessions": 900.0, "long_short_net_bps": 3.0}
    assert "cannot be told from chance" in verdict(figures)
    assert "worse than chance" in verdict({**figures, "rank_ic_t": -2.5})
    assert "does not earn anything" in verdict({**figures, "rank_ic_t": 3.0, "long_short_net_bps": -3.0})
    assert "earns something" in verdict({**figures, "rank_ic_t": 3.0})
    assert "no ranking skill" in verdict({**figures, "rank_ic": None})
