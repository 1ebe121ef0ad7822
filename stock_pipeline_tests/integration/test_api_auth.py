"""Log-in, tokens, passwords, links, the second factor, own sessions and keys: over the API, on both databases."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import jwt
import pyotp
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account, problem, settings_for, signed_in

OTHER = "another quiet sentence 8"
OWN = {"password": PASSWORD}


def log_in(app: FastAPI, name: str, password: str = PASSWORD, **more: Any) -> Any:
    return TestClient(app).post("/api/auth/login", json={"name": name, "password": password, **more})


def bearer(app: FastAPI, token: str) -> TestClient:
    return TestClient(app, headers={"Authorization": f"Bearer {token}"})


def actions(app: FastAPI) -> list[str]:
    return [entry.action for entry in app.state.service.access.audit.entries()]


@pytest.mark.requirement("A5", "R8.1")
def test_log_in_and_out(app: FastAPI) -> None:
    add_account(app, "ana", "analyst")
    tokens = log_in(app, "Ana").json()  # names are compared without case
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 900
    client = bearer(app, tokens["access_token"])
    me = client.get("/api/auth/me").json()
    assert (me["name"], me["kind"], me["roles"]) == ("ana", "token", ["analyst"])
    assert {"predictions:read", "backtests:create"} <= set(me["permissions"])
    assert me["csrf_token"] is None
    answer = client.get("/api/auth/me")
    assert answer.headers["cache-control"] == "no-store"
    assert client.post("/api/auth/logout").status_code == 204
    problem(client.get("/api/auth/me"), 401, "session-revoked")
    problem(
        TestClient(app).post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]}),
        401,
        "session-revoked",
    )
    assert {"session.log_in", "session.log_out"} <= set(actions(app))


@pytest.mark.requirement("R8.1")
def test_access_tokens_end_after_a_quarter_of_an_hour(app: FastAPI, clock: Clock) -> None:
    add_account(app, "ana", "viewer")
    tokens = log_in(app, "ana").json()
    client = bearer(app, tokens["access_token"])
    clock.forward(minutes=14, seconds=50)
    assert client.get("/api/predictions").status_code == 200
    clock.forward(seconds=20)
    refused = client.get("/api/predictions")
    problem(refused, 401, "token-expired")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    renewed = client.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    assert bearer(app, renewed["access_token"]).get("/api/predictions").status_code == 200


@pytest.mark.requirement("R8.1")
def test_a_refresh_token_that_comes_twice_ends_the_session(app: FastAPI) -> None:
    add_account(app, "ana", "viewer")
    first = log_in(app, "ana").json()
    nobody = TestClient(app)
    second = nobody.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]}).json()
    assert second["refresh_token"] != first["refresh_token"]
    client = bearer(app, second["access_token"])
    assert client.get("/api/auth/me").status_code == 200
    problem(nobody.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]}), 401, "token-reused")
    problem(client.get("/api/auth/me"), 401, "session-revoked")
    problem(bearer(app, first["access_token"]).get("/api/auth/me"), 401, "session-revoked")
    assert nobody.post("/api/auth/refresh", json={"refresh_token": second["refresh_token"]}).status_code == 401
    assert "session.token_reuse" in actions(app)


@pytest.mark.requirement("R8.1")
def test_tokens_can_be_verified_by_the_published_keys_also_after_a_rotation(app: FastAPI) -> None:
    add_account(app, "ana", "viewer")
    nobody = TestClient(app)
    access = app.state.service.access

    def verified(token: str) -> dict[str, Any]:
        keys = {key["kid"]: jwt.PyJWK(key) for key in nobody.get("/.well-known/jwks.json").json()["keys"]}
        header = jwt.get_unverified_header(token)
        assert header["alg"] == "EdDSA"
        return jwt.decode(
            token, keys[header["kid"]], algorithms=["EdDSA"], options={"verify_aud": False, "verify_exp": False}
        )

    old = log_in(app, "ana").json()["access_token"]
    assert verified(old)["exp"] - verified(old)["iat"] == 900
    kid = access.rotate_keys("system")
    new = log_in(app, "ana").json()["access_token"]
    assert jwt.get_unverified_header(new)["kid"] == kid != jwt.get_unverified_header(old)["kid"]
    for token in (old, new):
        assert verified(token)
        assert bearer(app, token).get("/api/auth/me").status_code == 200


@pytest.mark.requirement("R8.1")
def test_registration_is_closed_by_default(app: FastAPI) -> None:
    answer = TestClient(app).post("/api/auth/register", json={"name": "eve", "password": PASSWORD})
    problem(answer, 403, "registration-closed")


@pytest.mark.requirement("R8.1")
def test_open_registration_gives_the_configured_role(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(registration="open", registration_role="viewer")
    nobody = TestClient(app)
    made = nobody.post("/api/auth/register", json={"name": "eve", "password": PASSWORD})
    assert made.status_code == 201
    assert made.json()["roles"] == ["viewer"]
    problem(nobody.post("/api/auth/register", json={"name": "EVE", "password": PASSWORD}), 409, "account-exists")
    problem(
        nobody.post("/api/auth/register", json={"name": "mallory", "password": "password123456"}), 422, "weak-password"
    )
    assert log_in(app, "eve").status_code == 200


@pytest.mark.requirement("R8.1")
def test_an_invitation_works_once(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(registration="invitation")
    link = app.state.service.access.links.create("invitation", role="operator", by="system")
    nobody = TestClient(app)
    problem(nobody.post("/api/auth/register", json={"name": "eve", "password": PASSWORD}), 403, "registration-closed")
    body = {"name": "eve", "password": PASSWORD, "invitation": link}
    assert nobody.post("/api/auth/register", json=body).json()["roles"] == ["operator"]
    problem(nobody.post("/api/auth/register", json={**body, "name": "mallory"}), 401, "link-invalid")


@pytest.mark.requirement("R8.1")
def test_the_first_administrator_is_made_by_a_link_and_no_second_one(app: FastAPI, clock: Clock) -> None:
    links = app.state.service.access.links
    first, second = (links.create("setup", by="system") for _ in range(2))
    nobody = TestClient(app)
    problem(
        nobody.post("/api/auth/setup", json={"link": "guess", "name": "root", "password": PASSWORD}),
        401,
        "link-invalid",
    )
    made = nobody.post("/api/auth/setup", json={"link": first, "name": "root", "password": PASSWORD})
    assert made.status_code == 201
    assert made.json()["roles"] == ["administrator"]
    problem(
        nobody.post("/api/auth/setup", json={"link": second, "name": "mallory", "password": PASSWORD}),
        409,
        "set-up-done",
    )


@pytest.mark.requirement("R8.1")
def test_the_setup_link_is_shown_on_a_terminal_only(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stock_pipeline.api.service import Service
    from stock_pipeline.cli import first_start

    settings = settings_for(home=tmp_path / "home")
    printed: list[str] = []
    monkeypatch.setattr(first_start.out, "print", lambda text, **_: printed.append(str(text)))
    first_start.tell_how_to_begin(settings)
    assert "#" not in "".join(printed)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    first_start.tell_how_to_begin(settings)
    address = printed[-1].strip()
    assert address.startswith("http://127.0.0.1:8000/setup#")
    secret = address.partition("#")[2]
    for file in (tmp_path / "home").rglob("*"):
        if file.is_file():
            with contextlib.suppress(FileNotFoundError):  # SQLite's second file goes with the last connection
                assert secret.encode() not in file.read_bytes(), file
    account = Service(settings).access.logins.set_up("root", PASSWORD, secret)
    assert account.roles == ("administrator",)
    printed.clear()
    first_start.tell_how_to_begin(settings)
    assert printed == []


@pytest.mark.requirement("R8.1")
def test_a_changed_password_ends_the_other_sessions(app: FastAPI) -> None:
    add_account(app, "ana", "viewer")
    here, elsewhere = (bearer(app, log_in(app, "ana").json()["access_token"]) for _ in range(2))
    change = {"old_password": "a wrong password 123", "new_password": OTHER}
    problem(here.post("/api/auth/password", json=change), 401, "invalid-credentials")
    problem(
        here.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": "short"}), 422, "weak-password"
    )
    assert here.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": OTHER}).status_code == 204
    assert here.get("/api/auth/me").status_code == 200
    problem(elsewhere.get("/api/auth/me"), 401, "session-revoked")
    problem(log_in(app, "ana"), 401, "invalid-credentials")
    assert log_in(app, "ana", OTHER).status_code == 200


@pytest.mark.requirement("R8.1")
def test_a_reset_link_sets_a_password_once_and_runs_out(app: FastAPI, clock: Clock) -> None:
    add_account(app, "ana", "viewer")
    session = bearer(app, log_in(app, "ana").json()["access_token"])
    links, nobody = app.state.service.access.links, TestClient(app)
    late = links.create("reset", account="ana", by="system", hours=0.1)
    clock.forward(minutes=10)
    problem(nobody.post("/api/auth/password/reset", json={"link": late, "password": OTHER}), 401, "link-invalid")
    link = links.create("reset", account="ana", by="system", hours=1)
    problem(
        nobody.post("/api/auth/password/reset", json={"link": link, "password": "123456789012"}), 422, "weak-password"
    )
    _, key = app.state.service.access.keys.create("ana", "job", ["predictions:read"])
    done = nobody.post("/api/auth/password/reset", json={"link": link, "password": OTHER})
    assert (done.status_code, done.json()) == (200, {"sessions_ended": 1, "keys_revoked": 1})
    problem(TestClient(app, headers={"X-API-Key": key}).get("/api/predictions"), 401, "session-revoked")
    problem(nobody.post("/api/auth/password/reset", json={"link": link, "password": PASSWORD}), 401, "link-invalid")
    problem(session.get("/api/auth/me"), 401, "session-revoked")
    assert log_in(app, "ana", OTHER).status_code == 200


@pytest.mark.requirement("R8.1")
def test_a_second_factor_is_asked_for_once_it_is_confirmed(app: FastAPI, clock: Clock) -> None:
    add_account(app, "root", "administrator")
    client = bearer(app, log_in(app, "root").json()["access_token"])
    begun = client.post("/api/auth/second-factor", json=OWN).json()
    assert begun["uri"].startswith("otpauth://totp/")
    totp = pyotp.TOTP(begun["secret"])

    def code() -> str:
        clock.forward(seconds=31)
        return totp.at(clock.now)

    assert log_in(app, "root").status_code == 200  # not confirmed yet
    wrong = f"{(int(totp.at(clock.now)) + 1) % 1_000_000:06}"
    problem(client.post("/api/auth/second-factor/confirm", json={"code": wrong}), 422, "invalid-code")
    assert client.post("/api/auth/second-factor/confirm", json={"code": code()}).status_code == 204
    problem(client.post("/api/auth/second-factor", json=OWN), 409, "second-factor-exists")
    problem(log_in(app, "root"), 401, "second-factor-required")
    used = code()
    logged_in = log_in(app, "root", code=used)
    assert bearer(app, logged_in.json()["access_token"]).get("/api/auth/me").json()["second_factor"] is True
    problem(log_in(app, "root", code=used), 401, "invalid-credentials")  # a code counts once
    removal = {"password": PASSWORD, "code": code()}
    assert client.post("/api/auth/second-factor/remove", json=removal).status_code == 204
    assert log_in(app, "root").status_code == 200


@pytest.mark.requirement("R8.1")
def test_administrators_without_a_second_factor_only_read_where_one_is_wanted(
    make_app: Callable[..., FastAPI], clock: Clock
) -> None:
    app = make_app(second_factor="administrators")
    client = signed_in(app, "administrator")
    assert client.get("/api/users").status_code == 200
    body = {"name": "eve", "password": PASSWORD}
    refused = problem(client.post("/api/users", json=body), 403, "second-factor-required")
    assert "/api/auth/second-factor" in refused["detail"]
    totp = pyotp.TOTP(client.post("/api/auth/second-factor", json=OWN).json()["secret"])
    assert client.post("/api/auth/second-factor/confirm", json={"code": totp.at(clock.now)}).status_code == 204
    assert client.post("/api/users", json=body).status_code == 201


@pytest.mark.requirement("R8.1")
def test_keys_of_programs(app: FastAPI, clock: Clock) -> None:
    client = signed_in(app, "analyst")
    beyond = {"name": "x", "scopes": ["users:manage"], **OWN}
    problem(client.post("/api/account/keys", json=beyond), 422, "invalid-scopes")
    ends = clock.now.replace(microsecond=0).timestamp() + 3600
    wanted = {"name": "nightly export", "scopes": ["predictions:read"], "expires_at": f"{clock.now.isoformat()}", **OWN}
    problem(client.post("/api/account/keys", json=wanted), 422, "invalid-key")
    wanted["expires_at"] = type(clock.now).fromtimestamp(ends, clock.now.tzinfo).isoformat()
    made = client.post("/api/account/keys", json=wanted)
    assert made.status_code == 201
    secret = made.json()["key"]
    listed = client.get("/api/account/keys").json()["items"]
    assert [key["name"] for key in listed] == ["nightly export"]
    assert secret not in client.get("/api/account/keys").text
    for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {secret}"}):
        program = TestClient(app, headers=headers)
        assert program.get("/api/predictions").status_code == 200
        problem(program.get("/api/auth/me"), 403, "forbidden")
    clock.forward(hours=2)
    problem(TestClient(app, headers={"X-API-Key": secret}).get("/api/predictions"), 401, "token-expired")
    client = signed_in(app, "analyst")
    made = client.post(
        "/api/account/keys", json={"name": "second", "scopes": ["predictions:read", "account:use"], **OWN}
    ).json()
    program = TestClient(app, headers={"X-API-Key": made["key"]})
    assert program.get("/api/auth/me").json()["kind"] == "api_key"
    for refused in (
        program.post("/api/account/keys", json={"name": "third", "scopes": ["predictions:read"], **OWN}),
        program.post("/api/auth/logout"),
        program.post("/api/auth/second-factor", json=OWN),
        program.post("/api/account/sessions/revoke-others"),
        program.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": OTHER}),
    ):
        problem(refused, 403, "session-required")
    assert client.delete(f"/api/account/keys/{made['id']}").status_code == 204
    problem(program.get("/api/predictions"), 401, "session-revoked")
    problem(client.delete("/api/account/keys/000000000000"), 404, "key-not-found")
    assert {"api_key.create", "api_key.revoke"} <= set(actions(app))


@pytest.mark.requirement("R8.1")
def test_sessions_are_listed_and_ended(app: FastAPI) -> None:
    add_account(app, "ana", "viewer")
    add_account(app, "ben", "viewer")
    clients = []
    for agent in ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "curl/8.5.0", "python-httpx/0.28"):
        tokens = TestClient(app, headers={"User-Agent": agent}).post(
            "/api/auth/login", json={"name": "ana", "password": PASSWORD}
        )
        clients.append(bearer(app, tokens.json()["access_token"]))
    stranger = bearer(app, log_in(app, "ben").json()["access_token"])
    mine = clients[0].get("/api/account/sessions").json()["items"]
    assert {one["device"] for one in mine} == {"Firefox on Linux", "curl", "Python httpx"}
    assert [one["device"] for one in mine if one["current"]] == ["Firefox on Linux"]
    assert all(one["address"] == "testclient" for one in mine)
    curl = next(one["id"] for one in mine if one["device"] == "curl")
    problem(stranger.delete(f"/api/account/sessions/{curl}"), 404, "session-not-found")
    assert clients[0].delete(f"/api/account/sessions/{curl}").status_code == 204
    problem(clients[1].get("/api/auth/me"), 401, "session-revoked")
    assert clients[0].post("/api/account/sessions/revoke-others").json() == {"revoked": 1}
    problem(clients[2].get("/api/auth/me"), 401, "session-revoked")
    assert clients[0].get("/api/auth/me").status_code == 200
    assert stranger.get("/api/auth/me").status_code == 200


@pytest.mark.requirement("R8.2")
def test_anonymous_readers_come_in_only_where_the_settings_let_them(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(anonymous_role="viewer")
    nobody = TestClient(app)
    assert nobody.get("/api/predictions").status_code != 401
    refused = nobody.get("/api/users")
    problem(refused, 401, "token-missing")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    problem(nobody.get("/api/account/keys"), 401, "token-missing")
    problem(bearer(app, "garbage").get("/api/predictions"), 401, "token-invalid")


@pytest.mark.requirement("R8.1")
def test_what_changes_how_one_comes_in_asks_for_the_password_again(app: FastAPI, clock: Clock) -> None:
    add_account(app, "ana", "viewer")
    client = bearer(app, log_in(app, "ana").json()["access_token"])
    key = {"name": "job", "scopes": ["predictions:read"]}
    for way, body in (("/api/auth/second-factor", {}), ("/api/account/keys", key)):
        problem(client.post(way, json=body), 422, "password-missing")
        problem(client.post(way, json={**body, "password": "a wrong password 123"}), 401, "invalid-credentials")
    assert not app.state.service.access.accounts.get("ana").second_factor
    assert client.get("/api/account/keys").json()["items"] == []
    totp = pyotp.TOTP(client.post("/api/auth/second-factor", json=OWN).json()["secret"])
    assert client.post("/api/auth/second-factor/confirm", json={"code": totp.at(clock.now)}).status_code == 204
    for way, body in (("/api/auth/second-factor/remove", {}), ("/api/account/keys", key)):  # now the code as well
        clock.forward(minutes=1)
        code = {"code": totp.at(clock.now)}
        problem(client.post(way, json={**body, **code}), 422, "password-missing")
        problem(client.post(way, json={**body, **OWN}), 401, "second-factor-required")
    assert client.post("/api/account/keys", json={**key, **OWN, **code}).status_code == 201
    assert app.state.service.access.accounts.get("ana").second_factor


@pytest.mark.requirement("R8.1")
def test_wrong_passwords_of_a_stolen_session_count_like_those_of_a_log_in(app: FastAPI) -> None:
    add_account(app, "ana", "viewer")
    client = bearer(app, log_in(app, "ana").json()["access_token"])
    ways = ["/api/auth/second-factor", "/api/account/keys", "/api/auth/step-up"]
    for way in ways:
        body = {"name": "job", "scopes": ["predictions:read"]} if "keys" in way else {}
        problem(client.post(way, json={**body, "password": "a wrong password 123"}), 401, "invalid-credentials")
    refused = client.post(ways[0], json=OWN)
    problem(refused, 429, "too-many-attempts")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.requirement("R8.1", "R8.3")
def test_an_administrator_is_no_way_around_ones_own_proof(app: FastAPI, clock: Clock) -> None:
    root = signed_in(app, "administrator", "root")
    totp = pyotp.TOTP(root.post("/api/auth/second-factor", json=OWN).json()["secret"])
    root.post("/api/auth/second-factor/confirm", json={"code": totp.at(clock.now)})
    problem(root.delete("/api/users/ROOT/second-factor"), 409, "own-account")
    problem(root.post("/api/users/ROOT/reset-link"), 409, "own-account")
    assert app.state.service.access.accounts.get("root").second_factor


@pytest.mark.requirement("R8.1", "R8.3")
def test_an_administrator_chooses_whether_a_reset_ends_the_keys(app: FastAPI) -> None:
    root = signed_in(app, "administrator", "root")
    for name, body, kept in (("ana", None, False), ("ben", {"revoke_keys": False}, True), ("cai", {}, False)):
        add_account(app, name, "viewer")
        _, key = app.state.service.access.keys.create(name, "job", ["predictions:read"])
        made = root.post(f"/api/users/{name}/reset-link", json=body).json()
        assert made["revoke_keys"] is not kept
        secret = made["link"].partition("#")[2]
        done = TestClient(app).post("/api/auth/password/reset", json={"link": secret, "password": OTHER}).json()
        assert done == {"sessions_ended": 0, "keys_revoked": 0 if kept else 1}
        used = TestClient(app, headers={"X-API-Key": key}).get("/api/predictions")
        assert used.status_code == (200 if kept else 401)
    problem(root.post("/api/users/ana/reset-link", json={"revoke_keys": "no"}), 422, "invalid-parameters")


@pytest.mark.requirement("R8.1", "R8.3")
def test_a_link_made_before_a_promotion_does_not_work_after_it(app: FastAPI) -> None:
    root = signed_in(app, "administrator", "root")
    link = root.post("/api/users", json={"name": "ana"}).json()["link"].partition("#")[2]
    assert root.patch("/api/users/ana", json={"roles": ["administrator"]}).status_code == 200
    nobody = TestClient(app)
    problem(nobody.post("/api/auth/password/reset", json={"link": link, "password": OTHER}), 401, "link-invalid")
    again = root.post("/api/users/ana/reset-link").json()["link"].partition("#")[2]
    assert nobody.post("/api/auth/password/reset", json={"link": again, "password": OTHER}).status_code == 200
