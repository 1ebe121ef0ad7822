"""What people open in a browser: Dagster's asset graph, an asset's page, the reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stock_pipeline.config import Settings
from stock_pipeline_tests.browser.visits import NO_FAULT, PATIENCE_MS, PHONE, WIDE
from stock_pipeline_tests.running import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow]
GROUPS = ("market", "features", "risk", "models", "predictions", "backtests")


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    yield from _page(chromium, request.param)


@pytest.fixture
def wide(chromium: Browser) -> Iterator[Page]:
    yield from _page(chromium, WIDE)


def _page(chromium: Browser, size: dict[str, int]) -> Iterator[Page]:
    """A fresh page; the test fails when anything is written to the console as an error or a script throws."""
    context = chromium.new_context(viewport=size)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url} failed: {request.failure}"))
    yield page
    found = [*problems]  # what was under way when the page was closed is no fault of the page
    context.close()
    assert [text for text in found if not any(words in text for words in (*NO_FAULT, "/graphql failed"))] == []


def fits(page: Page) -> None:
    """Wait until nothing has to be scrolled sideways: what is drawn once the page is there takes its place then."""
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.requirement("P4")
def test_the_asset_graph_shows_the_groups_and_nothing_in_front_of_them(wide: Page, running: Running) -> None:
    wide.goto(f"{running.dagster}asset-groups")
    for group in GROUPS:
        wide.get_by_text(group, exact=True).first.wait_for()
    assert wide.get_by_role("dialog").count() == 0, "no invitation to a newsletter"
    assert wide.get_by_text("newsletter").count() == 0


@pytest.mark.requirement("P4")
def test_an_asset_shows_its_owner_columns_and_course(wide: Page, running: Running) -> None:
    wide.goto(f"{running.dagster}assets/market/quality_scores")
    wide.get_by_text("quality_score_over_time").first.wait_for()
    wide.get_by_text("quant", exact=True).first.wait_for()
    wide.get_by_text("0 (unusable) to 100 (no finding)").first.wait_for()
    drawings = "[...document.images].filter(i => i.src.startsWith('data:image/svg')).map(i => i.naturalWidth)"
    wide.wait_for_function(f"({drawings}).some(width => width > 100)")


@pytest.mark.requirement("R3.5")
def test_the_backtest_report_loads_draws_and_fits(page: Page, shown: Settings) -> None:
    page.goto((shown.home / "reports" / "backtests" / "model_rank.html").as_uri())
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert "Model rank" in page.inner_text("h1")
    fits(page)


@pytest.mark.requirement("R7.4")
def test_the_quality_report_loads_and_fits(page: Page, shown: Settings) -> None:
    page.goto((shown.home / "reports" / "quality.html").as_uri())
    assert "quality" in page.inner_text("body").lower()
    fits(page)
