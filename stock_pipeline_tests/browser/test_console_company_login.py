"""Coming in through a company's identity provider: its button, its page, and back to where one wanted to go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for
from stock_pipeline_tests.browser.visits import Visits, loaded
from stock_pipeline_tests.identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.services import free_port
from stock_pipeline_tests.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R8.1", "A5")]


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as running:
        # another site than the service: only then do browsers hold cookies back as they do in a company
        running.address = running.address.replace("127.0.0.1", "localhost")
        yield running


@pytest.fixture
def company(chromium: Browser, provider: IdentityProvider, tmp_path: Path) -> Iterator[Visits]:
    """A console with a button of a company, whose people are analysts."""
    lake, port = Lake(tmp_path / "lake"), free_port()
    publish(lake, SESSIONS[-1])
    oidc = {
        "issuer": provider.address, "client_id": CLIENT, "client_secret": "env:SECRET", "role": "analyst",
        "label": "Log in with Example Ltd",
    }  # fmt: skip
    access = {"oidc": oidc, "public_url": f"http://127.0.0.1:{port}"}
    app = app_for(lake, sections={"access": access, "variables": {"SECRET": SECRET}})
    with served(app, port) as address:
        visits = Visits(chromium, f"{address}/", app.state.service)
        yield visits
        visits.finish()


def test_somebody_comes_in_by_the_button_of_the_company(company: Visits, provider: IdentityProvider) -> None:
    company.allow_refusals(401)  # a page whose session ends may be about to follow events
    page = company.page(None, "/tasks?kind=train")
    page.get_by_role("link", name="Log in with Example Ltd").click()
    page.get_by_role("link", name="Go on as ana").click()
    page.get_by_role("heading", name="Tasks", level=1).wait_for()
    loaded(page)
    assert page.url == f"{company.address}tasks?kind=train", "where one wanted to go, with nothing of the journey"
    assert page.locator(".who").inner_text().split()[:3] == ["A", "ana", "analyst"]
    (cookie,) = page.context.cookies(company.address)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")

    page.locator(".who").get_by_role("link", name="ana").click()
    page.get_by_text("This account logs in without a password of its own").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You are logged out.").wait_for()
    page.goto(f"{company.address}tasks")
    assert urlsplit(page.url).path == "/login"


def test_the_answer_of_the_provider_opens_nothing_twice(company: Visits, provider: IdentityProvider) -> None:
    company.expect_refusals(401)
    page = company.page(None, "/login")
    page.get_by_role("link", name="Log in with Example Ltd").click()
    back = page.get_by_role("link", name="Go on as ana").get_attribute("href")
    assert back is not None
    page.get_by_role("link", name="Go on as ana").click()
    page.get_by_role("heading", name="Predictions", level=1).wait_for()

    thief = company.page(None, "/login")
    thief.goto(back)
    thief.get_by_role("heading", name="The log-in did not succeed").wait_for()
    thief.get_by_role("link", name="To the log-in").click()
    thief.get_by_role("link", name="Log in with Example Ltd").wait_for()
    assert thief.context.cookies(company.address) == []
