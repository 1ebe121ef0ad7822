"""A market is found by the name in its configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from stock_pipeline.config import find_market
from stock_pipeline.config.loading import SAMPLE_FILE
from stock_pipeline.core.errors import ConfigurationError


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"market: {{name: {name}, calendar: XNYS}}\n")
    return path.resolve()


@pytest.mark.requirement("P8", "R9.1")
def test_a_market_is_found_by_its_name(tmp_path: Path) -> None:
    mine = write(tmp_path / "stock_pipeline.yaml", "mine")
    other = write(tmp_path / "markets" / "india.yaml", "nse")
    assert find_market("mine", tmp_path) == mine
    assert find_market("nse", tmp_path) == other
    assert find_market("us_tech", tmp_path) == SAMPLE_FILE.resolve()


@pytest.mark.requirement("R9.3")
def test_an_unknown_or_ambiguous_market_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "mine")
    with pytest.raises(ConfigurationError, match=r"no configuration is of this market: 'yours'.*mine, us_tech"):
        find_market("yours", tmp_path)
    write(tmp_path / "b.yaml", "mine")
    with pytest.raises(ConfigurationError, match=r"several.*a\.yaml.*b\.yaml"):
        find_market("mine", tmp_path)
