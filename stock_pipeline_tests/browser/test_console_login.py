"""Coming in and going out: by form, by keyboard, by one-time links, with a second factor, and not from elsewhere."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest

from stock_pipeline.access.principal import AccessError
from stock_pipeline_tests.browser.visits import AGENT, PASSWORD, Visits, loaded

pytestmark = [pytest.mark.slow]


def path(address: str) -> str:
    """Path of an address."""
    return urlsplit(address).path


@pytest.mark.requirement("R8.1", "A5")
def test_somebody_logs_in_sees_who_they_are_and_logs_out(visits: Visits) -> None:
    visits.expect_refusals(401)  # the wrong password
    visits.allow_refusals(401)  # the page that is left may be about to follow events
    page = visits.page(None, "/tasks?kind=backtest")
    assert path(page.url) == "/login", "who is not logged in is asked to"
    page.get_by_label("Name").fill("ana")
    page.get_by_label("Password").fill("not the password 1")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("is not right").wait_for()
    assert page.get_by_label("Name").input_value() == "ana"
    assert page.get_by_label("Password").input_value() == ""

    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Tasks", level=1).wait_for()
    loaded(page)
    assert page.url.endswith("/tasks?kind=backtest"), "one goes on where one wanted to go"
    assert page.locator(".who").inner_text().split() == ["A", "ana", "analyst", "Log", "out"]
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"

    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You are logged out.").wait_for()
    with pytest.raises(AccessError) as refused:
        visits.service.access.gate.authenticate_cookie(cookie["value"])
    assert refused.value.status == 401
    page.go_back()
    page.wait_for_url("**/login*")


@pytest.mark.requirement("R8.1")
def test_the_keyboard_is_enough(visits: Visits) -> None:
    page = visits.page(None, "/login")
    page.wait_for_function("() => document.activeElement.name === 'name'")
    page.keyboard.type("vera")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Predictions", level=1).wait_for()
    loaded(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'content'")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
    assert {"q", "confidence", "Apply"} <= set(reached)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus can be seen"


@pytest.mark.requirement("R8.1")
def test_no_log_in_leads_elsewhere(visits: Visits) -> None:
    for wanted in ("//evil.example/x", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/%09/evil"):
        page = visits.page(None, None)
        page.goto(f"{visits.address}login?next={wanted}")
        page.get_by_label("Name").fill("vera")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.locator(".who").wait_for()
        assert page.url.startswith(visits.address), wanted


@pytest.mark.requirement("R8.1")
def test_a_form_of_another_site_is_refused(visits: Visits) -> None:
    page = visits.page("vera", "/account")
    cookie = {one["name"]: one["value"] for one in page.context.cookies()}
    fields = {"old_password": PASSWORD, "new_password": "another quiet otter 1", "again": "another quiet otter 1"}
    headers = {"Accept": "text/html", "User-Agent": AGENT}
    with httpx.Client(base_url=visits.address, cookies=cookie, headers=headers, timeout=120) as client:
        answer = client.post("/account/password", data=fields)
        assert answer.status_code == 403, "no token"
        answer = client.post("/account/password", data={**fields, "csrf_token": "0" * 64})
        assert answer.status_code == 403, "the token of nobody"
        token = page.locator("meta[name=csrf]").get_attribute("content")
        foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
        answer = client.post("/account/password", data={**fields, "csrf_token": token}, headers=foreign)
        assert answer.status_code == 403, "another site"
        login = {"name": "vera", "password": PASSWORD}
        for headers in (foreign, {"Origin": "null"}, {"Origin": "https://evil.example"}, {}):
            assert client.post("/login", data=login, headers=headers).status_code == 403, headers
        own = {"Origin": visits.address.rstrip("/")}
        assert client.post("/login", data=login, headers=own).status_code == 303
    visits.service.access.logins.log_in("vera", PASSWORD)


@pytest.mark.requirement("R8.1", "A5")
def test_a_second_factor_is_set_up_by_qr_code_and_asked_for(visits: Visits) -> None:
    visits.expect_refusals(401)
    visits.service.access.accounts.create("fay", password=PASSWORD, roles=("viewer",), by="system")
    page = visits.page("fay", "/account")
    page.locator("form[action='/account/second-factor']").get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Set up").click()
    picture = page.get_by_role("img", name=re.compile("QR code"))
    picture.wait_for()
    page.wait_for_function("() => document.querySelector('.qr').naturalWidth > 100")  # the picture is drawn
    secret = page.locator("#secret").inner_text().replace(" ", "")
    page.get_by_label("Code that the app shows").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Turn on").click()
    page.get_by_text("The second factor is on").wait_for()

    again = visits.page(None, "/login")
    again.get_by_label("Name").fill("fay")
    again.get_by_label("Password").fill(PASSWORD)
    again.get_by_role("button", name="Log in").click()
    again.get_by_label("Code", exact=True).wait_for()
    assert again.get_by_label("Password").input_value() == PASSWORD, "the password need not be typed again"
    assert again.evaluate("document.activeElement.name") == "code"
    assert PASSWORD not in again.content()
    later = visits.service.access.clock() + timedelta(seconds=30)  # the code of before was used up
    code = pyotp.TOTP(secret).at(later)
    again.get_by_label("Code", exact=True).fill(code)
    again.keyboard.press("Enter")
    again.get_by_role("heading", name="Predictions", level=1).wait_for()


@pytest.mark.requirement("R8.1", "A5")
def test_an_invitation_makes_an_account_and_its_secret_leaves_the_address(visits: Visits) -> None:
    visits.expect_refusals(422)
    secret = visits.service.access.links.create("invitation", role="analyst", by="system")
    page = visits.page(None, f"/invitation#{secret}")
    assert page.url == f"{visits.address}invitation", "the history does not keep the secret"
    assert not page.get_by_label("Code of the link").is_visible()
    page.get_by_label("Name").fill("ines")
    for label in ("Password", "Password again"):
        page.get_by_label(label, exact=True).fill("password1234")
    page.get_by_role("button", name="Make the account").click()
    page.get_by_role("alert").wait_for()  # too common: the form is still good for another one
    loaded(page)
    for label in ("Password", "Password again"):
        page.get_by_label(label, exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Make the account").click()
    page.get_by_text("The account is ready").wait_for()
    loaded(page)
    assert visits.service.access.accounts.get("ines").roles == ("analyst",)
    assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"


@pytest.mark.requirement("R8.1")
def test_a_page_is_never_shown_in_a_frame_nor_kept(visits: Visits) -> None:
    page = visits.page("vera", None)
    answer = page.goto(visits.address)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
