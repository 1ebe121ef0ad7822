"""What the console shows of the market: predictions, a symbol, models, data quality, alerts; at every width."""

from __future__ import annotations

import re

import pytest

from stock_pipeline_tests.browser.visits import PHONE, Visits, fits, loaded

pytestmark = [pytest.mark.slow]

INK = """(figure) => {
  const canvas = figure.querySelector("canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let seen = 0;
  for (let place = 3; place < data.length; place += 4) if (data[place] > 0) seen += 1;
  return seen / (canvas.width * canvas.height);
}"""
PAGES = (
    "/", "/unpredicted", "/symbols/AAPL", "/quality", "/models", "/models/champion", "/backtests",
    "/backtests/model_rank", "/backtests/new", "/tasks", "/alerts", "/alerts?state=all", "/account", "/users",
    "/users/vera", "/roles", "/roles/analyst", "/audit",
)  # fmt: skip


def symbols(page: object) -> list[str]:
    """Symbols of the table, from top to bottom."""
    found: list[str] = page.locator("#results tbody th a").all_inner_texts()  # type: ignore[attr-defined]
    return found


@pytest.mark.requirement("A1", "R8.1")
def test_predictions_are_sorted_filtered_and_searched_without_a_reload(visits: Visits) -> None:
    page = visits.page("vera", "/")
    assert page.locator("h1").inner_text() == "Predictions"
    assert len(symbols(page)) == 4
    page.evaluate("window.mark = 1")
    page.locator("th a.sort", has_text="Symbol").click()
    page.wait_for_url("**sort=symbol*")
    page.locator("th[aria-sort=ascending]", has_text="Symbol").wait_for()
    assert symbols(page) == sorted(symbols(page))
    page.keyboard.press("Enter")  # the heading has kept the focus
    page.locator("th[aria-sort=descending]", has_text="Symbol").wait_for()
    assert symbols(page) == sorted(symbols(page), reverse=True)
    page.get_by_label("Symbol contains").fill("am")
    page.wait_for_url("**q=am*")
    assert symbols(page) == ["AMZN"]
    page.get_by_label("Symbol contains").fill("nothing")
    page.get_by_text("No prediction matches").wait_for()
    page.get_by_label("Symbol contains").fill("")
    page.locator("#results tbody tr").nth(3).wait_for()
    page.get_by_label("Confidence from").fill("100")
    page.get_by_text("No prediction matches").wait_for()
    assert page.evaluate("window.mark") == 1, "the page was never loaded anew"
    assert page.locator(".spark polyline").count() == 0
    page.goto(visits.address)
    assert page.locator(".spark polyline").count() == 4
    assert page.locator(".span .range").count() == 4


@pytest.mark.requirement("A1")
def test_the_page_of_a_symbol_draws_its_charts_and_says_where_it_came_from(visits: Visits) -> None:
    visits.expect_refusals(404)
    page = visits.page("vera", "/")
    page.get_by_role("link", name="AAPL").click()
    page.get_by_role("heading", name="AAPL", level=1).wait_for()
    loaded(page)
    for name in ("chart-price", "chart-outcomes", "chart-risk", "chart-quality"):
        figure = page.locator(f"[data-chart={name}][data-drawn]")
        figure.wait_for()
        assert figure.evaluate(INK) > 0.005, name
        description = figure.locator(".plot").get_attribute("aria-label") or ""
        assert len(description) > 40, name
    lineage = page.locator("section", has=page.get_by_role("heading", name="Where the prediction came from"))
    assert "Feature set hash" in lineage.inner_text()
    before = page.locator("#chart-price").inner_text()
    page.get_by_role("link", name="All", exact=True).click()
    page.wait_for_url("**/symbols/AAPL?*")
    page.locator("[data-chart=chart-price][data-drawn]").wait_for()
    assert len(page.locator("#chart-price").inner_text()) > len(before), "more sessions"
    missing = page.goto(f"{visits.address}symbols/NOPE")
    assert missing is not None
    assert missing.status == 404
    page.get_by_text("there are no bars of 'NOPE'").wait_for()


@pytest.mark.requirement("A4", "R8.2")
def test_models_are_read_by_all_and_promoted_by_those_who_may(visits: Visits) -> None:
    page = visits.page("vera", "/models")
    page.get_by_role("link", name="1", exact=True).click()
    page.get_by_role("heading", name=re.compile("ridge version 1")).wait_for()
    loaded(page)
    assert page.get_by_role("rowheader", name="Rank IC", exact=True).count() == 1
    assert page.get_by_role("link", name="MLflow").count() == 0, "models can be changed there"
    card = page.context.request.get(f"{visits.address}api/models/1/card?format=html")
    assert card.ok
    assert page.get_by_role("button", name="Promote").count() == 0
    assert page.get_by_role("button", name="Roll back").count() == 0

    registry = visits.service.model_registry
    registry.client.delete_registered_model_alias(registry.name, "champion")
    operator = visits.page("otto", "/models/1")
    link = operator.locator(".actions").get_by_role("link", name="MLflow").get_attribute("href")
    assert link is not None
    assert link.startswith(visits.service.settings.services.host, len("http://"))
    operator.get_by_label("Why").fill("looked at its figures")
    operator.get_by_role("button", name="Promote").click()
    dialog = operator.get_by_role("dialog")
    dialog.get_by_text("Make version 1 the champion?").wait_for()
    dialog.get_by_role("button", name="Keep as it is").click()
    assert registry.champion() is None, "nothing happens without a yes"
    operator.get_by_role("button", name="Promote").click()
    operator.get_by_role("dialog").get_by_role("button", name="Promote").click()
    operator.get_by_text("The version is the champion now").wait_for()
    champion = registry.champion()
    assert champion is not None
    assert champion.version == 1


@pytest.mark.requirement("A6")
def test_quality_shows_scores_and_leads_to_its_reports(visits: Visits) -> None:
    page = visits.page("vera", "/quality")
    page.locator("[data-chart=chart-scores][data-drawn]").wait_for()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report", exact=True).click()
    opened.value.get_by_text("quality").first.wait_for()
    page.get_by_role("searchbox", name="Symbol").fill("AAPL")
    page.wait_for_url("**symbol=AAPL*")
    assert set(symbols(page)) <= {"AAPL"}


@pytest.mark.requirement("A6", "R8.2")
def test_an_alert_comes_by_itself_and_is_marked_as_over(visits: Visits) -> None:
    from datetime import UTC, datetime

    from stock_pipeline.observability.alerts import Alert

    page = visits.page("otto", "/alerts")
    page.locator(".live.on").wait_for()
    alert = Alert(
        kind="data.overdue", severity="critical", title="Bars are overdue <b>now</b>", body="Two sessions are missing.",
        fingerprint="browser-test", source_key="browser-test", created_at=datetime.now(UTC), labels={},
    )  # fmt: skip
    visits.service.alert_outbox.enqueue(alert)
    page.get_by_role("heading", name="Bars are overdue <b>now</b>").wait_for()
    viewer = visits.page("vera", "/alerts")
    assert viewer.get_by_text("Two sessions are missing.").count() == 1
    assert viewer.get_by_role("button", name="Mark as over").count() == 0
    page.get_by_role("article", name="Bars are overdue").get_by_role("button", name="Mark as over").click()
    page.get_by_role("dialog").get_by_role("button", name="Mark as over").click()
    page.get_by_text("The alert is marked as over").wait_for()
    assert "browser-test" not in {one.fingerprint for one in visits.service.alert_outbox.open_alerts()}


@pytest.mark.requirement("A1", "A4", "A6")
def test_every_page_fits_a_phone_and_opens_its_menu(visits: Visits) -> None:
    page = visits.page("ada", "/", size=PHONE)
    for path in PAGES:
        answer = page.goto(visits.address + path.lstrip("/"))
        assert answer is not None
        assert answer.status == 200, path
        assert fits(page), path
        assert page.locator("h1").count() == 1, path
        assert (
            page.locator("input:visible:not([type=checkbox])").count()
            == page.locator("label:visible input:not([type=checkbox]), input:visible:not([type=checkbox])[id]").count()
        ), path
    assert not page.get_by_role("link", name="Models").is_visible()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Models").wait_for()
    page.keyboard.press("Escape")
    assert not page.get_by_role("link", name="Models").is_visible()


@pytest.mark.requirement("A1")
def test_the_dark_scheme_is_readable(visits: Visits) -> None:
    page = visits.page("vera", "/symbols/AAPL")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.wait_for_function("(light) => getComputedStyle(document.body).backgroundColor !== light", arg=light)
    page.locator("[data-chart=chart-price][data-drawn]").wait_for()
    for name in ("--ink", "--soft", "--accent", "--up", "--down", "--warn", "--bad"):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            ratio = page.evaluate(CONTRAST, name)
            assert ratio >= 4.5, (name, scheme, ratio)


CONTRAST = """(name) => {
  const root = getComputedStyle(document.documentElement);
  const light = (value) => {
    const parts = value.trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16) / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(root.getPropertyValue(name)), light(root.getPropertyValue("--surface"))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
