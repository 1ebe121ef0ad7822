"""Accounts of others, roles and the audit trail: over the API, on both databases."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.api import background
from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account, problem, signed_in

OTHER = "another quiet sentence 8"


@pytest.fixture
def root(app: FastAPI) -> TestClient:
    return signed_in(app, "administrator", "root")


def entries(root: TestClient, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = root.get("/api/audit", params=filters).json()["items"]
    return found


@pytest.mark.requirement("A5", "R8.1")
def test_an_account_from_its_making_to_its_end(app: FastAPI, root: TestClient) -> None:
    made = root.post("/api/users", json={"name": "ana", "roles": ["analyst"]})
    assert made.status_code == 201
    assert made.json()["has_password"] is False
    link = made.json()["link"]
    assert link.startswith("http://127.0.0.1:8000/reset#")
    nobody = TestClient(app)
    secret = link.partition("#")[2]
    assert nobody.post("/api/auth/password/reset", json={"link": secret, "password": PASSWORD}).status_code == 200
    ana = signed_in(app, "analyst", "ana")
    assert root.get("/api/users/ANA").json()["last_login_at"] is not None
    problem(root.post("/api/users", json={"name": "Ana", "password": PASSWORD}), 409, "account-exists")

    assert root.patch("/api/users/ana", json={"disabled": True}).json()["disabled"] is True
    assert ana.get("/api/auth/me").status_code == 401
    answer = nobody.post("/api/auth/login", json={"name": "ana", "password": PASSWORD})
    problem(answer, 401, "invalid-credentials")
    assert root.patch("/api/users/ana", json={"disabled": False, "locked": False}).json()["disabled"] is False

    ana = signed_in(app, "analyst", "ana")
    again = root.post("/api/users/ana/reset-link").json()
    assert again["expires_at"] > "2"
    assert len(root.get("/api/users/ana/sessions").json()["items"]) == 1
    assert root.delete("/api/users/ana/sessions").json() == {"revoked": 1}
    problem(ana.get("/api/auth/me"), 401, "session-revoked")

    ana = signed_in(app, "analyst", "ana")
    key = ana.post("/api/account/keys", json={"name": "x", "scopes": ["predictions:read"], "password": PASSWORD}).json()
    assert [one["id"] for one in root.get("/api/users/ana/keys").json()["items"]] == [key["id"]]
    assert root.delete(f"/api/users/ana/keys/{key['id']}").status_code == 204
    problem(TestClient(app, headers={"X-API-Key": key["key"]}).get("/api/predictions"), 401, "session-revoked")
    session = root.get("/api/users/ana/sessions").json()["items"][0]["id"]
    problem(root.delete(f"/api/users/root/sessions/{session}"), 404, "session-not-found")
    assert root.delete(f"/api/users/ana/sessions/{session}").status_code == 204
    assert root.delete("/api/users/ana/second-factor").status_code == 204

    assert root.delete("/api/users/ana").status_code == 204
    problem(root.get("/api/users/ana"), 404, "account-not-found")
    assert {"account.create", "account.disable", "account.enable", "account.delete", "link.create"} <= {
        entry["action"] for entry in entries(root, limit=1000)
    }


@pytest.mark.requirement("A5")
def test_accounts_are_searched_and_paged(app: FastAPI, root: TestClient) -> None:
    names = {"root"}
    for number in range(23):
        add_account(app, f"user-{number:02d}", "viewer")
        names.add(f"user-{number:02d}")
    seen: list[str] = []
    cursor = None
    while True:
        page = root.get("/api/users", params={"limit": 5, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == names
    found = root.get("/api/users", params={"search": "ER-1"}).json()["items"]
    assert [item["name"] for item in found] == [f"user-{number}" for number in range(10, 20)]
    for pattern in ("%", "_", "\\", "' OR 1=1 --"):
        assert root.get("/api/users", params={"search": pattern}).json()["items"] == []
    first = root.get("/api/users", params={"limit": 5}).json()["next_cursor"]
    problem(root.get("/api/users", params={"limit": 5, "cursor": first, "search": "x"}), 400, "invalid-cursor")
    problem(root.get("/api/users", params={"cursor": "W10"}), 400, "invalid-cursor")


@pytest.mark.requirement("R8.3")
def test_other_roles_count_at_once_for_issued_tokens(app: FastAPI, root: TestClient) -> None:
    ana = signed_in(app, "viewer", "ana")
    program = TestClient(
        app,
        headers={
            "X-API-Key": ana.post(
                "/api/account/keys", json={"name": "x", "scopes": ["predictions:read"], "password": PASSWORD}
            ).json()["key"]
        },
    )
    problem(ana.get("/api/users"), 403, "forbidden")
    assert root.patch("/api/users/ana", json={"roles": ["administrator"]}).json()["roles"] == ["administrator"]
    assert ana.get("/api/users").status_code == 200
    assert root.patch("/api/users/ana", json={"roles": ["viewer"]}).status_code == 200
    problem(ana.get("/api/users"), 403, "forbidden")
    assert program.get("/api/predictions").status_code == 200
    assert root.patch("/api/users/ana", json={"roles": []}).json()["roles"] == []
    for client in (ana, program):
        problem(client.get("/api/predictions"), 403, "forbidden")
    changes = entries(root, action="role.*", object_id="ana")
    assert [(entry["action"], entry["before"], entry["after"]) for entry in reversed(changes)] == [
        ("role.assign", {"roles": ["viewer"]}, {"roles": ["administrator", "viewer"]}),
        ("role.withdraw", {"roles": ["administrator", "viewer"]}, {"roles": ["administrator"]}),
        ("role.assign", {"roles": ["administrator"]}, {"roles": ["administrator", "viewer"]}),
        ("role.withdraw", {"roles": ["administrator", "viewer"]}, {"roles": ["viewer"]}),
        ("role.withdraw", {"roles": ["viewer"]}, {"roles": []}),
    ]


@pytest.mark.requirement("R8.3")
def test_what_a_role_holds_can_be_changed_while_the_service_runs(app: FastAPI, root: TestClient) -> None:
    ana = signed_in(app, "viewer", "ana")
    made = root.post("/api/roles", json={"name": "auditor", "parent": "viewer", "permissions": ["audit:read"]})
    assert made.status_code == 201
    assert {"audit:read", "predictions:read"} <= set(made.json()["permissions"])
    root.patch("/api/users/ana", json={"roles": ["auditor"]})
    assert ana.get("/api/audit").status_code == 200
    assert root.patch("/api/roles/auditor", json={"permissions": ["users:read"]}).json()["own"] == ["users:read"]
    problem(ana.get("/api/audit"), 403, "forbidden")
    assert ana.get("/api/users").status_code == 200
    assert root.patch("/api/roles/auditor", json={"parent": None}).json()["permissions"] == ["users:read"]
    problem(ana.get("/api/predictions"), 403, "forbidden")
    problem(root.delete("/api/roles/auditor"), 409, "role-in-use")
    problem(root.delete("/api/roles/viewer"), 409, "built-in-role")
    problem(root.post("/api/roles", json={"name": "auditor"}), 409, "role-exists")
    problem(root.get("/api/roles/nobody"), 404, "role-not-found")
    problem(root.post("/api/roles", json={"name": "x", "permissions": ["everything:do"]}), 422, "unknown-permission")
    problem(root.post("/api/roles", json={"name": "x", "parent": "nobody"}), 422, "unknown-role")
    problem(root.patch("/api/roles/viewer", json={"parent": "administrator"}), 409, "role-cycle")
    root.patch("/api/users/ana", json={"roles": ["viewer"]})
    assert root.delete("/api/roles/auditor").status_code == 204
    change = entries(root, action="role.change", object_id="auditor")[-1]
    assert change["before"]["permissions"] == ["audit:read"]
    assert change["after"]["permissions"] == ["users:read"]
    names = [role["name"] for role in root.get("/api/roles").json()["items"]]
    assert names == ["viewer", "analyst", "operator", "administrator"]
    assert {item["name"] for item in root.get("/api/permissions").json()["items"]} == set(PERMISSIONS)


@pytest.mark.requirement("R8.2", "R8.3")
def test_the_last_administrator_cannot_be_shut_out(app: FastAPI, root: TestClient) -> None:
    for refused in (
        root.patch("/api/users/root", json={"disabled": True}),
        root.patch("/api/users/root", json={"roles": ["viewer"]}),
        root.patch("/api/users/root", json={"roles": []}),
        root.delete("/api/users/root"),
        root.patch("/api/roles/administrator", json={"permissions": [], "parent": "viewer"}),
    ):
        problem(refused, 409, "last-administrator")
    assert root.get("/api/users").status_code == 200
    add_account(app, "deputy", "administrator")
    assert root.patch("/api/users/root", json={"roles": ["viewer"]}).status_code == 200
    problem(root.get("/api/users"), 403, "forbidden")


@pytest.mark.requirement("R8.2", "R8.4")
def test_a_change_of_several_things_is_made_as_a_whole_or_not_at_all(app: FastAPI, root: TestClient) -> None:
    change = {"roles": ["administrator", "analyst"], "disabled": True}
    problem(root.patch("/api/users/root", json=change), 409, "last-administrator")
    assert root.get("/api/users/root").json()["roles"] == ["administrator"], "what could be done is undone"
    trail = app.state.service.access.audit
    assert trail.entries(AuditFilter(action="role.assign", object_id="root")) == []
    add_account(app, "ana", "viewer")
    done = root.patch("/api/users/ana", json={"roles": ["analyst"], "disabled": True, "locked": False}).json()
    assert (done["roles"], done["disabled"]) == (["analyst"], True)
    told = [entry.action for entry in reversed(trail.entries(AuditFilter(object_id="ana")))]
    assert told[-4:] == ["role.assign", "role.withdraw", "account.disable", "account.unlock"]
    assert trail.verify().faults == ()


@pytest.mark.requirement("R8.2")
def test_nobody_gives_or_takes_over_more_than_they_hold(app: FastAPI, root: TestClient) -> None:
    root.post(
        "/api/roles", json={"name": "help-desk", "parent": "viewer", "permissions": ["users:read", "users:manage"]}
    )
    helper = signed_in(app, "help-desk", "helper")
    add_account(app, "ana", "viewer")
    add_account(app, "boss", "operator")
    assert helper.post("/api/users/ana/reset-link").status_code == 201
    assert helper.post("/api/users", json={"name": "new", "password": PASSWORD}).status_code == 201
    for refused in (
        helper.post("/api/users", json={"name": "mine", "password": PASSWORD, "roles": ["administrator"]}),
        helper.post("/api/users/root/reset-link"),
        helper.post("/api/users/boss/reset-link"),
        helper.patch("/api/users/root", json={"disabled": True}),
        helper.patch("/api/users/helper", json={"roles": ["administrator"]}),
        helper.delete("/api/users/root"),
        helper.delete("/api/users/root/second-factor"),
        helper.delete("/api/users/root/sessions"),
        helper.post("/api/roles", json={"name": "mine", "permissions": ["users:manage"]}),
        helper.patch("/api/roles/help-desk", json={"permissions": ["roles:manage"]}),
    ):
        problem(refused, 403, "forbidden")
    assert {item["name"] for item in root.get("/api/users").json()["items"]} == {
        "root", "helper", "ana", "boss", "new",
    }  # fmt: skip


@pytest.mark.requirement("R8.4")
def test_every_change_is_in_the_trail_with_its_request(root: TestClient) -> None:
    answer = root.post(
        "/api/users",
        json={"name": "ana", "password": PASSWORD},
        headers={"X-Request-ID": "find-this-one", "User-Agent": "test/1"},
    )
    assert answer.status_code == 201
    (entry,) = entries(root, action="account.create", request_id="find-this-one")
    assert (entry["actor"], entry["actor_kind"], entry["result"]) == ("root", "token", "done")
    assert (entry["object_kind"], entry["object_id"]) == ("account", "ana")
    assert (entry["address"], entry["user_agent"]) == ("testclient", "test/1")
    assert entry["after"]["name"] == "ana"
    assert PASSWORD not in root.get("/api/audit", params={"limit": 1000}).text
    own = root.get("/api/account/sessions").json()["items"][0]["id"]
    assert entry["session_id"] == own


@pytest.mark.requirement("R8.4")
def test_the_trail_is_filtered_paged_exported_reported_and_verified(
    app: FastAPI, root: TestClient, clock: Clock
) -> None:
    for number in range(7):
        root.post("/api/users", json={"name": f"user-{number}", "password": PASSWORD})
    seen: list[int] = []
    cursor = None
    while True:
        query = {"action": "account.create", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = root.get("/api/audit", params=query).json()
        seen += [item["sequence"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 8
    assert seen == sorted(set(seen), reverse=True)
    assert entries(root, result="refused") == []
    assert entries(root, until="2001-01-01T00:00:00Z") == []
    assert {entry["actor"] for entry in entries(root, actor="root")} == {"root"}

    lines = root.get("/api/audit/export").text.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    table = root.get("/api/audit/export", params={"format": "csv"})
    assert "attachment" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [int(row["sequence"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > len(lines)  # the first export is itself an entry

    clock.forward(seconds=1)
    report = root.get("/api/audit/report").json()
    assert report["by_action"]["account.create"] == 8
    problem(
        root.get("/api/audit/report", params={"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        422,
        "invalid-parameters",
    )
    for period in ({"since": "2419-01-21T11:32:36Z"}, {"until": "0001-01-01T00:00:00Z"}):
        problem(root.get("/api/audit/report", params=period), 422, "invalid-parameters")
    assert root.get("/api/audit/verify").json()["intact"] is True
    with app.state.service.database.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'eve' WHERE sequence = 5"))
    found = root.get("/api/audit/verify").json()
    assert found["intact"] is False
    assert any("5" in fault for fault in found["faults"])


@pytest.mark.requirement("R8.4", "R8.5")
def test_reads_of_data_are_audited_as_sums(make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FLUSH_SECONDS", 3600.0)  # what is read here is one sum
    app = make_app()
    with signed_in(app, "viewer", "ana") as ana:
        for _ in range(5):
            assert ana.get("/api/predictions", params={"limit": 7}).status_code == 200
        assert ana.get("/api/predictions/2023-06-28.S000.5").status_code == 200
        before = app.state.service.access.audit.entries()
        assert not [entry for entry in before if entry.action == "data.read"]
    found = {
        entry.object_id: entry.detail
        for entry in app.state.service.access.audit.entries()
        if entry.action == "data.read" and entry.actor == "ana"
    }
    assert found["/api/predictions"] == {"rows": 35, "requests": 5, "route": "/api/predictions"}
    assert found["/api/predictions/{prediction_id}"]["rows"] == 1


@pytest.mark.requirement("R8.1", "R8.2")
def test_a_key_takes_over_no_account_that_may_more_not_even_its_own(app: FastAPI, root: TestClient) -> None:
    add_account(app, "ana", "viewer")
    scopes = ["users:manage", *(name for name in PERMISSIONS if name.endswith(":read")), "account:use"]
    wanted = {"name": "provisioning", "scopes": scopes, "password": PASSWORD}
    made = root.post("/api/account/keys", json=wanted).json()
    program = TestClient(app, headers={"X-API-Key": made["key"]})
    assert program.post("/api/users/ana/reset-link").status_code == 201
    for refused in (
        program.post("/api/users/root/reset-link"),
        program.delete("/api/users/root/second-factor"),
        program.delete("/api/users/root/sessions"),
        program.patch("/api/users/root", json={"disabled": True}),
        program.delete("/api/users/root"),
    ):
        problem(refused, 403, "forbidden")
    problem(root.post("/api/users/root/reset-link"), 409, "own-account")
