"""Reports in a real browser, as the service sends them: charts draw, and nothing else is possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stock_pipeline.config import Settings
from stock_pipeline_tests.api_finished import app_of, copied
from stock_pipeline_tests.api_service import signed_in
from stock_pipeline_tests.browser.visits import PATIENCE_MS
from stock_pipeline_tests.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow]

EVIL = """<!doctype html><title>old report</title><p id="state">nothing</p><script>
const tried = [];
const note = () => { document.getElementById("state").textContent = tried.join(" ") + " done"; };
try { tried.push("cookie:" + document.cookie); } catch (error) { tried.push("no-cookie"); }
try { localStorage.setItem("a", "b"); tried.push("storage"); } catch (error) { tried.push("no-storage"); }
fetch("/api/account", {credentials: "include"})
  .then(() => tried.push("fetched"), () => tried.push("no-fetch")).then(note);
</script><script>document.title = "second script ran"</script>
<img src="/static/icon.svg" onerror="document.title='handler ran'">
<form action="/logout" method="post"><button id="send">send</button></form>"""


@pytest.fixture(scope="module")
def sandbox(untouched: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """Address, folder of reports, and the header of an account that is logged in."""
    settings = copied(untouched, tmp_path_factory.mktemp("sandbox") / "market")
    app = app_of(settings)
    with served(app) as address:
        yield address, settings.home / "reports", signed_in(app).headers["Authorization"]


@pytest.fixture
def page(chromium: Browser, sandbox: tuple[str, Path, str]) -> Iterator[Page]:
    context = chromium.new_context(extra_http_headers={"Authorization": sandbox[2]})
    context.add_cookies([{"name": "stock_pipeline_session", "value": "a-secret", "url": sandbox[0]}])
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    yield made
    context.close()


@pytest.mark.requirement("R3.5", "R7.4")
@pytest.mark.parametrize("path", ["quality.html", "backtests/buy_and_hold.html", "backtests/model_rank.html"])
def test_charts_draw(page: Page, sandbox: tuple[str, Path, str], path: str) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{sandbox[0]}/reports/{path}")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length > 1")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot path').length > 5")
    assert errors == []


@pytest.mark.requirement("R4.4", "A4")
def test_a_model_card_shows_its_figures(page: Page, sandbox: tuple[str, Path, str]) -> None:
    page.goto(f"{sandbox[0]}/api/models/champion/card?format=html")
    assert page.locator("svg, img").count() >= 3
    page.get_by_role("heading", name="Calibration").wait_for()


@pytest.mark.requirement("R7.4")
def test_data_docs_lead_from_page_to_page(page: Page, sandbox: tuple[str, Path, str]) -> None:
    page.goto(f"{sandbox[0]}/reports/data_docs/index.html")
    page.get_by_role("link", name="What was checked").first.click()
    page.wait_for_url("**/validations/**")
    assert page.locator("table").count() > 0


@pytest.mark.requirement("R8.2", "R3.5")
def test_an_old_report_cannot_act_in_the_readers_name(page: Page, sandbox: tuple[str, Path, str]) -> None:
    address, reports, _ = sandbox
    (reports / "backtests" / "evil.html").write_text(EVIL)
    page.goto(f"{address}/reports/backtests/evil.html")
    page.wait_for_function("document.getElementById('state').textContent.includes('done')")
    assert page.locator("#state").text_content().split() == ["no-cookie", "no-storage", "no-fetch", "done"]
    assert page.title() == "second script ran"  # it stands in the file; the handler in an attribute is no script
    page.locator("#send").click()
    page.wait_for_timeout(500)
    assert page.url == f"{address}/reports/backtests/evil.html"
