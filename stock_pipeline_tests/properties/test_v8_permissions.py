"""V8: no request without the permission succeeds.

Every route of the application is walked, those of the OpenAPI document and those that are not in it (pages, redirects,
WebSockets): each declares a permission or says that it is public, and each is asked by everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.principal import Origin
from stock_pipeline.api.contract import permissions
from stock_pipeline.api.dependencies import PUBLIC, require
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.accounts import tampered
from stock_pipeline_tests.api_service import Clock, add_account, app_for, with_clock
from stock_pipeline_tests.asgi_calls import Asked, ask
from stock_pipeline_tests.databases import (  # noqa: F401
    migrated_file,
    postgres_address,
    postgres_server,
    sqlite_address,
)
from stock_pipeline_tests.filled import body_of, path_of, query_of
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.patience import patient_limits  # noqa: F401
from stock_pipeline_tests.published import SESSIONS, publish

pytestmark = [pytest.mark.requirement("V8", "R8.2")]

ROLES = ("viewer", "analyst", "operator", "administrator")
FILES = {"/static", "/reference"}
"""Folders of the pages' files; nothing in them is of a market or a person."""

PROOFS = {"invalid-credentials", "link-invalid", "token-invalid"}
"""Why a route refuses a password, link or refresh token in its body: it was reached."""

PATIENT = {
    "limits": {
        "login": "100000/second",
        "write": "100000/second",
        "read": "100000/second",
        "failures": "100000/second",
        "streams": 10_000,
    },
    "abuse": {"probing_refusals": 10_000},
}


@dataclass(frozen=True)
class Route:
    """One method of one path, and a request that it accepts."""

    method: str
    path: str
    permission: str
    query: tuple[tuple[str, Any], ...] = ()
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class World:
    """An application, the routes that it has, and people who ask."""

    def __init__(self, app: FastAPI, clock: Clock) -> None:
        self.app, self.clock, self.access = app, clock, app.state.service.access
        document = app.openapi()
        self.routes: list[Route] = []
        self.sockets: list[str] = []
        for route in iter_route_contexts(app.routes):
            declared = permissions(route)
            if isinstance(route.original_route, Mount):
                assert route.path in FILES, f"{route.path}: files outside of the pages' folders"
                continue
            assert len(declared) == 1, f"{route.path} declares {declared or 'neither a permission nor public'}"
            assert declared[0] == PUBLIC or declared[0] in PERMISSIONS, f"{route.path}: unknown {declared[0]}"
            if route.methods is None or "websocket" in type(route.original_route).__name__.lower():
                self.sockets.append(route.path or "")
                continue
            for method in sorted(route.methods - {"HEAD", "OPTIONS"}):
                operation = document["paths"].get(route.path_format, {}).get(method.lower(), {})
                query = tuple(query_of(document, operation).items())
                self.routes.append(
                    Route(method, path_of(route.path or "", {}), declared[0], query, body_of(document, operation))
                )
                if operation:
                    assert operation["x-permission"] == declared[0]
        self.guarded = [route for route in self.routes if route.permission != PUBLIC]

    def session(self, name: str) -> tuple[str, str]:
        """Open a session; gives its token and its id."""
        opened = self.access.logins.enter(
            self.access.accounts.get(name), "token", Origin("192.0.2.1", "test"), second_factor=False
        )
        return opened.tokens.access_token, opened.session.id

    async def ask(self, route: Route, headers: dict[str, str] | None = None) -> Asked:
        return await ask(self.app, route.method, route.path, headers=headers, query=dict(route.query), body=route.body)

    def everywhere(self, check: Callable[[Route], Awaitable[str | None]], routes: list[Route] | None = None) -> None:
        """Run a check on every route that needs a permission; all that is wrong is told at once."""

        async def run() -> list[str]:
            return [
                f"{route}: {wrong}"
                for route in (self.guarded if routes is None else routes)
                if (wrong := await check(route)) is not None
            ]

        wrong = run_apart(run())
        assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    publish(made, SESSIONS[0])
    return made


def make_world(lake: Lake, home: Path, database: str | None = None) -> World:
    sections: dict[str, Any] = {"access": PATIENT}
    if database is not None:
        sections["storage"] = {"metadata": database}
    app = app_for(lake, sections=sections)
    clock = Clock()
    with_clock(app, clock)
    app.state.publications.refresh()
    for role in ROLES:
        add_account(app, f"the-{role}", role)
    add_account(app, "nobody-special", None)
    return World(app, clock)


@pytest.fixture(scope="module")
def world(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(lake, tmp_path_factory.mktemp("home"))


def refused(answer: Asked, status: int, *kinds: str) -> str | None:
    """What is wrong with an answer that should be a refusal."""
    if answer.status != status or answer.kind not in kinds:
        return f"{answer.status} {answer.kind} instead of {status} {' or '.join(kinds)}"
    if status == 401 and "www-authenticate" not in answer.headers:
        return "no WWW-Authenticate"
    return None


def not_permitted(answer: Asked, route: Route) -> str | None:
    """What is wrong with an answer to somebody who lacks the permission of a route."""
    wrong = refused(answer, 403, "forbidden")
    if wrong is None and f"lacks the permission {route.permission}" not in answer.detail:
        return f"refused for another reason: {answer.detail}"
    return wrong


def reached(answer: Asked, route: Route) -> str | None:
    """What is wrong with an answer to somebody who has the permission.

    A route that was reached may still refuse a password, link or token in the body, or a right that the body asks for;
    and a page of a refused form is a page, no problem document.
    """
    by_the_gate = answer.kind == "forbidden" and f"lacks the permission {route.permission}" in answer.detail
    by_proof = answer.status == 401 and answer.kind not in {"", *PROOFS}
    if answer.status == 0 or by_the_gate or by_proof:
        return f"{answer.status} {answer.kind}: refused although the permission is there"
    return None


def test_the_walk_meets_every_operation_of_the_document_and_more(world: World) -> None:
    operations = sum(len(item) for item in world.app.openapi()["paths"].values())
    assert operations >= 60
    assert len(world.routes) > operations
    assert world.sockets == ["/ws/events"]
    used = {route.permission for route in world.guarded}
    assert used >= {"predictions:read", "users:manage", "roles:manage", "audit:read", "tasks:control", "account:use"}


def test_a_new_route_without_a_declaration_is_found(lake: Lake, tmp_path: Path) -> None:
    app = app_for(lake)

    @app.get("/api/new")
    async def new() -> None:
        return None

    with pytest.raises(AssertionError, match="/api/new declares neither"):
        World(app, Clock())
    app = app_for(lake)
    app.add_api_route("/api/typo", new, dependencies=[Depends(require("predictions:red"))])
    with pytest.raises(AssertionError, match="/api/typo: unknown predictions:red"):
        World(app, Clock())


def test_nobody_comes_in_without_a_valid_proof(world: World) -> None:
    token, _ = world.session("the-administrator")
    head, _, signature = token.split(".")
    other, _ = world.session("the-viewer")
    bad = {
        "no scheme": {"Authorization": token},
        "other scheme": {"Authorization": f"Basic {token}"},
        "garbage": {"Authorization": "Bearer garbage"},
        "an empty token": {"Authorization": "Bearer "},
        "tampered": {"Authorization": f"Bearer {tampered(token)}"},
        "payload of another": {"Authorization": f"Bearer {head}.{other.split('.')[1]}.{signature}"},
        "garbage key": {"X-API-Key": "spk_000000000000_garbage"},
        "garbage cookie": {"Cookie": "stock_pipeline_session=spc_garbage"},
        "two proofs": {"Authorization": f"Bearer {token}", "X-API-Key": token},
    }

    async def check(route: Route) -> str | None:
        wrong = refused(await world.ask(route), 401, "token-missing")
        for name, headers in bad.items():
            wrong = wrong or refused(await world.ask(route, headers), 401, "token-invalid", "session-revoked")
            if wrong:
                return f"{name}: {wrong}"
        return None

    world.everywhere(check)


def test_expired_revoked_and_disabled_are_refused(world: World) -> None:
    def all_refused(headers: dict[str, str], kind: str) -> None:
        async def check(route: Route) -> str | None:
            return refused(await world.ask(route, headers), 401, kind)

        world.everywhere(check)

    token, _ = world.session("the-administrator")
    world.clock.forward(minutes=15, seconds=1)
    all_refused({"Authorization": f"Bearer {token}"}, "token-expired")

    token, session = world.session("the-administrator")
    world.access.sessions.revoke(session, "test", "system")
    all_refused({"Authorization": f"Bearer {token}"}, "session-revoked")

    made, key = world.access.keys.create("the-administrator", "x", sorted(PERMISSIONS))
    world.access.keys.revoke(made.id, "system")
    all_refused({"X-API-Key": key}, "session-revoked")

    add_account(world.app, "leaver", "administrator")
    token, _ = world.session("leaver")
    world.access.accounts.disable("leaver", "system")
    run_apart(_still_refused(world, token))


async def _still_refused(world: World, token: str) -> None:
    answer = await world.ask(world.guarded[0], {"Authorization": f"Bearer {token}"})
    assert refused(answer, 401, "account-disabled", "session-revoked") is None


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reaches_what_it_holds_and_nothing_else(world: World, role: str) -> None:
    held = world.access.roles.permissions_of((role,))

    async def check(route: Route) -> str | None:
        token, _ = world.session(f"the-{role}")
        answer = await world.ask(route, {"Authorization": f"Bearer {token}"})
        return reached(answer, route) if route.permission in held else not_permitted(answer, route)

    world.everywhere(check)


def test_a_key_reaches_no_more_than_its_scopes(world: World) -> None:
    async def check(route: Route) -> str | None:
        others = sorted(set(PERMISSIONS) - {route.permission})
        _, key = world.access.keys.create("the-administrator", "x", others)
        wrong = not_permitted(await world.ask(route, {"X-API-Key": key}), route)
        _, key = world.access.keys.create("the-administrator", "x", [route.permission])
        answer = await world.ask(route, {"X-API-Key": key})
        for made in world.access.keys.list("the-administrator"):
            if made.revoked_at is None:
                world.access.keys.revoke(made.id, "system")
        if answer.kind == "session-required":  # keys do not change log-ins, whatever their scopes
            return wrong if route.permission == "account:use" else "session-required"
        return wrong or reached(answer, route)

    world.everywhere(check)


def test_each_permission_opens_exactly_its_routes_at_once_for_an_issued_token(world: World) -> None:
    world.access.roles.create("changing", None, (), "system")
    add_account(world.app, "changing", "changing")
    lasting = [route for route in world.guarded if "logout" not in route.path]
    sample = list({route.permission: route for route in lasting}.values())
    token, _ = world.session("changing")
    headers = {"Authorization": f"Bearer {token}"}
    for held in sorted(PERMISSIONS):
        world.access.roles.change("changing", permissions=[held], by="system")

        async def check(route: Route, held: str = held) -> str | None:
            answer = await world.ask(route, headers)
            return reached(answer, route) if route.permission == held else not_permitted(answer, route)

        world.everywhere(check, sample)
    world.access.roles.withdraw("changing", "changing", "system")

    async def nothing(route: Route) -> str | None:
        return refused(await world.ask(route, headers), 403, "forbidden")

    world.everywhere(nothing, sample)


def test_the_websocket_lets_nobody_in_without_the_permission(lake: Lake, tmp_path: Path) -> None:
    world = make_world(lake, tmp_path)
    access = world.access
    expired, _ = world.session("the-viewer")
    world.clock.forward(minutes=16)
    revoked, session = world.session("the-viewer")
    access.sessions.revoke(session, "test", "system")
    access.roles.create("blind", None, ("account:use",), "system")
    add_account(world.app, "blind", "blind")
    blind, seeing = world.session("blind")[0], world.session("the-viewer")[0]
    client = TestClient(world.app)

    def closed(message: Any) -> int | None:
        with client.websocket_connect("/ws/events") as socket:
            socket.send_json(message)
            try:
                socket.send_json({"type": "ping"})
                assert socket.receive_json()["type"] != "error"
            except WebSocketDisconnect as ended:
                return ended.code
        return None

    with client:
        for bad in ("garbage", expired, revoked):
            assert closed({"type": "authenticate", "token": bad}) == 4401
        assert closed({"type": "authenticate"}) == 4401
        assert closed({"type": "authenticate", "ticket": "spt_garbage"}) == 4401
        assert closed({"type": "subscribe"}) in (4400, 4401)
        assert closed({"type": "authenticate", "token": blind}) == 4403
        assert closed({"type": "authenticate", "token": seeing}) is None


def test_the_walk_on_postgres(lake: Lake, tmp_path: Path, postgres_address: str) -> None:  # noqa: F811
    world = make_world(lake, tmp_path, postgres_address)
    held = world.access.roles.permissions_of(("viewer",))
    assert "users:read" not in held

    async def check(route: Route) -> str | None:
        wrong = refused(await world.ask(route), 401, "token-missing")
        token, _ = world.session("the-viewer")
        answer = await world.ask(route, {"Authorization": f"Bearer {token}"})
        return wrong or (reached(answer, route) if route.permission in held else not_permitted(answer, route))

    world.everywhere(check)
