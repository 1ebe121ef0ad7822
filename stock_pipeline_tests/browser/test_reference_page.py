"""The interactive reference in a real browser: complete, with no inline script or style that the policy would block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for
from stock_pipeline_tests.browser.visits import PATIENCE_MS, watch
from stock_pipeline_tests.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with served(app_for(Lake(tmp_path))) as running:
        yield running


@pytest.mark.requirement("A5")
def test_the_reference_shows_every_operation(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    elsewhere: list[str] = []
    watch(page, problems)
    page.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else elsewhere.append(request.url)
    )
    page.goto(f"{address}/docs")
    page.wait_for_selector(".opblock")
    count = sum(len(item) for item in server_document(page)["paths"].values())
    page.wait_for_function("(count) => document.querySelectorAll('.opblock').length >= count", arg=count)
    assert page.locator(".opblock").count() == count
    page.locator("#operations-authentication-log_in .opblock-summary-control").click()
    page.wait_for_selector("#operations-authentication-log_in .opblock-description")
    page.locator("#operations-authentication-log_in .try-out__btn").click()
    page.locator("#operations-authentication-log_in .execute").click()
    answers = page.locator("#operations-authentication-log_in .live-responses-table")
    answers.get_by_text("invalid-credentials").first.wait_for()
    expected = [text for text in problems if "401" in text]
    assert [text for text in problems if text not in expected] == []
    assert elsewhere == []
    page.close()


def server_document(page) -> dict:
    return page.evaluate("async () => (await fetch('/openapi.json')).json()")
