"""Work that is asked for in the console: a back-test from its form to its report, and what can be asked of a task."""

from __future__ import annotations

import re

import pytest

from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline_tests.browser.visits import Visits, loaded

pytestmark = [pytest.mark.slow]


@pytest.mark.requirement("A2", "A3", "R5.1", "R2.3")
def test_a_backtest_is_started_from_its_form_and_watched_to_the_end(visits: Visits) -> None:
    visits.expect_refusals(422)
    page = visits.page("ana", "/backtests")
    page.get_by_role("link", name="Start a back-test").click()
    page.wait_for_url("**/backtests/new")
    page.get_by_label("Strategy").select_option("sma_cross")
    fast = page.get_by_label("Fast")
    fast.wait_for()
    loaded(page)
    assert (fast.get_attribute("min"), fast.get_attribute("max")) == ("1", "1000"), "the limits of the schema"
    assert "Sessions of the fast average" in page.locator("#h-p-fast").inner_text()
    fast.fill("30")
    page.get_by_label("Slow").fill("20")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("alert").get_by_text("fast (30) must be smaller than slow (20)").wait_for()
    assert page.get_by_label("Fast").input_value() == "30", "what was typed is still there"

    page.get_by_label("Fast").fill("10")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/tasks/*")
    page.evaluate("window.mark = 1")
    page.locator(".live.on").wait_for()
    page.locator("#task .badge", has_text="succeeded").wait_for()
    assert page.evaluate("window.mark") == 1, "it was watched without loading the page anew"
    told = page.locator(".log .text").all_inner_texts()
    assert told[0] == "Succeeded."
    assert "Running." in told
    assert any("of 4 steps done" in text for text in told)

    page.get_by_role("link", name="Open the result").click()
    for name in ("chart-equity", "chart-drawdown"):
        page.locator(f"[data-chart={name}][data-drawn]").wait_for()
    assert page.locator(".kv").first.inner_text().split()[:4] == ["Fast", "10", "Side", "long"]
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open the report").click()
    report = opened.value
    report.locator(".js-plotly-plot .main-svg").first.wait_for()
    page.goto(f"{visits.address}backtests")
    row = page.get_by_role("row", name=re.compile("sma_cross")).filter(has_text="fast=10")
    row.filter(has_text="slow=20").get_by_text("on request").wait_for()


@pytest.mark.requirement("A2", "R2.3", "R8.2")
def test_a_task_is_paused_resumed_canceled_and_deleted_by_its_owner_only(visits: Visits) -> None:
    visits.expect_refusals(404)  # the page of the task that is gone
    visits.allow_refusals(404)  # the page that still follows it
    # no run begins its steps, so that none ends before it is paused or canceled
    with sole_writer(visits.service.settings.home, [BACKTESTS], print, wait=600):
        page = visits.page("ana", "/backtests/new?strategy=buy_and_hold")
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url("**/tasks/*")
        task = page.url.partition("?")[0]
        page.get_by_role("button", name="Pause").click()
        page.locator("#task .badge", has_text="paused").wait_for()

        viewer = visits.page("vera", None)
        viewer.goto(task)
        viewer.locator("#task .badge", has_text="paused").wait_for()
        assert viewer.locator("#task form").count() == 0, "a viewer has no buttons"
        viewer.close()  # it would go on asking for a task that is gone

        page.get_by_role("button", name="Resume").click()
        page.locator("#task .badge", has_text=re.compile("queued|starting|running")).wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.locator("#task .badge", has_text="canceled").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("The task and its runs are deleted").wait_for()
    gone = page.goto(task)
    assert gone is not None
    assert gone.status == 404


@pytest.mark.requirement("A2")
def test_tasks_are_filtered_and_predictions_are_asked_for(visits: Visits) -> None:
    visits.expect_refusals(422)
    page = visits.page("ana", "/tasks")
    assert page.get_by_role("button", name="Train").count() == 0, "analysts do not train"
    page.get_by_label("Symbols").fill("AAPL, NOPE")
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("alert").get_by_text("no bars of these symbols: NOPE").wait_for()
    page.get_by_label("Symbols").fill("AAPL AMZN")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_url("**/tasks/*")
    page.locator("#task .badge", has_text="succeeded").wait_for()
    page.get_by_role("heading", name="Predictions").wait_for()
    assert set(page.locator("section", has_text="Predictions").locator("th a").all_inner_texts()) == {"AAPL", "AMZN"}
    page.goto(f"{visits.address}tasks?kind=predict&mine=yes")
    assert page.locator("#results tbody tr").count() == 1
    page.get_by_label("Kind").select_option("train")
    page.get_by_text("No task here").wait_for()
