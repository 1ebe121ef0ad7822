"""Log-in of a browser with a company's identity provider, over the API, against one that runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.access import oidc
from stock_pipeline_tests.api_service import Clock, problem
from stock_pipeline_tests.identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider

pytestmark = pytest.mark.requirement("R8.1", "A5")


@pytest.fixture
def provider(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityProvider]:
    monkeypatch.setattr(oidc, "_TIMEOUT", 120.0)  # a busy machine is not taken for a provider that is silent
    with identity_provider() as running:
        running.now = lambda: clock.now.timestamp()
        yield running


@pytest.fixture
def company(make_lone_app: Callable[..., FastAPI], provider: IdentityProvider) -> FastAPI:
    return make_lone_app(
        oidc={"issuer": provider.address, "client_id": CLIENT, "client_secret": "env:SECRET", "role": "analyst"},
        variables={"SECRET": SECRET},
    )


def test_without_a_provider_there_is_no_such_log_in(lone_app: FastAPI) -> None:
    client = TestClient(lone_app, follow_redirects=False)
    problem(client.get("/api/auth/oidc/login"), 404, "not-found")
    problem(client.get("/api/auth/oidc/callback"), 404, "not-found")


def test_a_browser_goes_there_and_comes_back_logged_in(company: FastAPI, provider: IdentityProvider) -> None:
    browser = TestClient(company, follow_redirects=False)
    away = browser.get("/api/auth/oidc/login", params={"next": "/symbols/IBM"})
    assert away.status_code == 303
    assert away.headers["location"].startswith(provider.address)
    carried = away.headers["set-cookie"].lower()
    assert "httponly" in carried
    assert "samesite=lax" in carried
    back = browser.get("/api/auth/oidc/callback", params=provider.authorise(away.headers["location"]))
    assert (back.status_code, back.headers["location"]) == (303, "/symbols/IBM")
    me = browser.get("/api/auth/me").json()
    assert (me["name"], me["kind"], me["roles"]) == ("ana", "console", ["analyst"])
    assert "stock_pipeline_journey" not in browser.cookies


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_the_way_back_leads_nowhere_else(company: FastAPI, provider: IdentityProvider, elsewhere: str) -> None:
    browser = TestClient(company, follow_redirects=False)
    away = browser.get("/api/auth/oidc/login", params={"next": elsewhere})
    back = browser.get("/api/auth/oidc/callback", params=provider.authorise(away.headers["location"]))
    assert back.headers["location"] == "/"


def test_an_answer_that_belongs_to_another_browser_is_refused(company: FastAPI, provider: IdentityProvider) -> None:
    mine, other = (TestClient(company, follow_redirects=False) for _ in range(2))
    answer = provider.authorise(mine.get("/api/auth/oidc/login").headers["location"])
    problem(other.get("/api/auth/oidc/callback", params=answer), 401, "invalid-credentials")
    other.get("/api/auth/oidc/login")
    problem(other.get("/api/auth/oidc/callback", params=answer), 401, "invalid-credentials")
    for bad in ({}, {"state": "x"}, {"error": "access_denied", "state": answer["state"]}, {**answer, "state": "x"}):
        problem(mine.get("/api/auth/oidc/callback", params=bad), 401, "invalid-credentials")
    assert other.get("/api/auth/me").status_code == 401
