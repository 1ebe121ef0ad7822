"""The console's pages of the own account and of links: what asks for the password again, and what a reset ends."""

from __future__ import annotations

import re

import pyotp
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from stock_pipeline.storage.database.tables.accounts import AccountRow, SessionRow
from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account

pytestmark = pytest.mark.requirement("R8.1", "A5")

OTHER = "another quiet sentence 8"
PAGE = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}


class Browser:
    """Somebody who has logged in to the console, with the token of their forms."""

    def __init__(self, app: FastAPI, name: str, role: str = "viewer", address: str = "192.0.2.1") -> None:
        add_account(app, name, role)
        self.client = TestClient(app, headers=PAGE, client=(address, 50_000), follow_redirects=False)
        answer = self.client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        self.csrf = self.client.get("/api/auth/me").json()["csrf_token"]

    def send(self, path: str, **fields: str):
        return self.client.post(path, data={"csrf_token": self.csrf, **fields})


def secret_on(page: str) -> str:
    found = re.search(r'id="secret">([^<]+)<', page)
    assert found, page
    return found[1].replace(" ", "")


def test_the_second_factor_is_set_up_and_given_up_by_whoever_knows_the_password(app: FastAPI, clock: Clock) -> None:
    ana, accounts = Browser(app, "ana"), app.state.service.access.accounts
    assert ana.send("/account/second-factor").status_code == 422
    refused = ana.send("/account/second-factor", password="not the password 1")
    assert refused.status_code == 401
    assert "data:image/svg" not in refused.text
    begun = ana.send("/account/second-factor", password=PASSWORD)
    assert begun.status_code == 200
    totp = pyotp.TOTP(secret_on(begun.text))
    done = ana.send("/account/second-factor/confirm", code=totp.at(clock.now))
    assert done.headers["location"] == "/account?done=second-factor-on"
    clock.forward(minutes=1)
    for proof in ({}, {"code": totp.at(clock.now)}, {"password": PASSWORD}):
        assert ana.send("/account/second-factor/remove", **proof).status_code in (401, 422)
    assert accounts.get("ana").second_factor
    code = totp.at(clock.now)
    done = ana.send("/account/second-factor/remove", password=PASSWORD, code=f"{code[:3]} {code[3:]}")
    assert done.headers["location"] == "/account?done=second-factor-off"
    assert not accounts.get("ana").second_factor


def test_a_key_is_made_by_whoever_knows_the_password(app: FastAPI) -> None:
    ana = Browser(app, "ana")
    key = {"name": "job", "scopes": "predictions:read", "days": "30"}
    assert ana.send("/account/keys", **key).status_code == 422
    assert ana.send("/account/keys", **key, password="not the password 1").status_code == 401
    assert app.state.service.access.keys.list("ana") == []
    made = ana.send("/account/keys", **key, password=PASSWORD)
    assert made.status_code == 200
    program = TestClient(app, headers={"X-API-Key": secret_on(made.text)})
    assert program.get("/api/predictions").status_code == 200


@pytest.mark.requirement("R8.5")
def test_a_session_that_must_prove_itself_sets_up_no_second_factor(app: FastAPI, clock: Clock) -> None:
    Browser(app, "ana")
    clock.forward(minutes=1)
    far = Browser(app, "ana", address="203.0.113.9")
    for way in ("/account/second-factor", "/account/second-factor/confirm"):
        asked = far.send(way, password=PASSWORD, code="123456")
        assert asked.headers["location"].startswith("/account/step-up")
    assert far.send("/account/step-up", password=PASSWORD).status_code == 303
    assert far.send("/account/second-factor", password=PASSWORD).status_code == 200


@pytest.mark.requirement("R8.3")
@pytest.mark.parametrize("keep", [False, True])
def test_a_reset_ends_the_keys_unless_the_administrator_keeps_them(app: FastAPI, keep: bool) -> None:
    root = Browser(app, "root", "administrator")
    add_account(app, "ana", "viewer")
    _, key = app.state.service.access.keys.create("ana", "job", ["predictions:read"])
    assert 'name="revoke_keys" value="yes" checked' in root.client.get("/users/ana").text
    made = root.send("/users/ana/reset-link", **({} if keep else {"revoke_keys": "yes"}))
    assert ("keeps the API keys" in made.text) is keep
    link = secret_on(made.text).partition("#")[2]
    nobody = TestClient(app, headers=PAGE, follow_redirects=False)
    done = nobody.post("/reset", data={"link": link, "password": OTHER, "again": OTHER})
    assert done.headers["location"] == f"/login?done={'password-set' if keep else 'password-set-keys'}"
    said = nobody.get(done.headers["location"]).text
    assert ("keys of programs are revoked" in said) is not keep
    used = TestClient(app, headers={"X-API-Key": key}).get("/api/predictions")
    assert used.status_code == (200 if keep else 401)


@pytest.mark.requirement("R8.3")
def test_an_administrator_is_offered_no_way_around_the_own_proof(lone_app: FastAPI) -> None:
    root = Browser(lone_app, "root", "administrator")
    assert "/users/root/reset-link" not in root.client.get("/users/root").text
    refused = root.send("/users/root/reset-link", revoke_keys="yes")
    assert refused.status_code == 409
    assert "changed by the old" in refused.text


def test_an_account_of_an_identity_provider_is_not_asked_for_a_password(lone_app: FastAPI, clock: Clock) -> None:
    access = lone_app.state.service.access
    ana = Browser(lone_app, "ana")
    with Session(access.engine) as session, session.begin():  # as one that has always come from elsewhere
        session.execute(
            update(AccountRow).values(password_hash=None, oidc_issuer="https://a.example", oidc_subject="1")
        )
    assert 'type="password"' not in ana.client.get("/account").text
    totp = pyotp.TOTP(secret_on(ana.send("/account/second-factor").text))
    ana.send("/account/second-factor/confirm", code=totp.at(clock.now))
    clock.forward(minutes=11)
    assert ana.send("/account/keys", name="job", scopes="predictions:read", days="30").status_code == 401
    made = ana.send("/account/keys", name="job", scopes="predictions:read", days="30", code=totp.at(clock.now))
    assert made.status_code == 200, made.text
    clock.forward(minutes=1)
    with Session(access.engine) as session, session.begin():
        session.execute(update(SessionRow).values(step_up=True))
    access.roles.create("other", "viewer", [], by="system")  # whatever is known is read again
    assert 'type="password"' not in ana.client.get("/account/step-up").text
    assert ana.send("/account/step-up", code=totp.at(clock.now)).status_code == 303
