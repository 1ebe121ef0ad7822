"""Made-up tokens, keys, cookies and tickets: how many of an address are looked up, and who is not hurt by them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, update
from sqlalchemy.orm import Session
from websockets.asyncio.client import connect

from stock_pipeline.access.principal import AccessError, Origin
from stock_pipeline.access.secret_text import digest
from stock_pipeline.api.streams import connections
from stock_pipeline.storage.database.tables.accounts import SessionRow
from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account, problem, signed_in
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.serving import log_in, served
from stock_pipeline_tests.streaming import ending, entered, hear, say, socket_address
from stock_pipeline_tests.waiting import soon

pytestmark = pytest.mark.requirement("R8.1", "R8.5")

HERE, ELSEWHERE = ("192.0.2.7", 50_000), ("192.0.2.8", 50_000)
FEW = {"failures": "5/day", "login": "1000/minute", "write": "1000/minute", "read": "10000/minute"}
COOKIE = "stock_pipeline_session"

INVALID: dict[str, Callable[[], dict[str, Any]]] = {
    "token": lambda: {"headers": {"Authorization": f"Bearer {secrets.token_urlsafe(40)}"}},
    "token of three parts": lambda: {"headers": {"Authorization": f"Bearer a.b.{secrets.token_urlsafe(20)}"}},
    "key": lambda: {"headers": {"X-API-Key": f"spk_{secrets.token_hex(6)}_{secrets.token_urlsafe(40)}"}},
    "key as token": lambda: {"headers": {"Authorization": f"Bearer spk_0_{secrets.token_urlsafe(40)}"}},
    "long key": lambda: {"headers": {"X-API-Key": "spk_" + "x" * 5000}},
    "cookie": lambda: {"cookies": {COOKIE: f"spc_{secrets.token_urlsafe(40)}"}},
    "long cookie": lambda: {"cookies": {COOKIE: "x" * 5000}},
}


def ask(app: FastAPI, client: tuple[str, int], **proof: Any) -> Any:
    return TestClient(app, client=client, **proof).get("/api/predictions")


def fill(app: FastAPI, client: tuple[str, int] = HERE) -> None:
    """As many invalid proofs as an address may send."""
    for _ in range(5):
        problem(ask(app, client, **INVALID["key"]()), 401, "token-invalid")


@contextmanager
def looked_up(app: FastAPI) -> Iterator[list[str]]:
    """Statements about sessions and keys that reach the database."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if any(table in statement for table in ("account_session", "api_key", "stream_ticket")):
            seen.append(statement)

    engine = app.state.service.database
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("sort", INVALID)
def test_so_many_invalid_proofs_of_an_address_are_answered_and_then_none(
    make_lone_app: Callable[..., FastAPI], sort: str
) -> None:
    app = make_lone_app(limits=FEW)
    for _ in range(5):
        assert ask(app, HERE, **INVALID[sort]()).status_code == 401
    with looked_up(app) as seen:
        for other in INVALID:  # all kinds count together
            refused = ask(app, HERE, **INVALID[other]())
            problem(refused, 429, "too-many-attempts")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["ratelimit-limit"] == "5"
    assert seen == [], "what is made up does not reach the database any more"
    assert ask(app, ELSEWHERE, **INVALID[sort]()).status_code == 401
    problem(ask(app, HERE), 401, "token-missing")  # nothing was sent, so nothing was invalid


def test_an_address_of_ipv6_is_its_network(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(limits=FEW)
    fill(app, ("2001:db8::1", 50_000))
    problem(ask(app, ("2001:db8::ffff", 50_000), **INVALID["cookie"]()), 429, "too-many-attempts")
    problem(ask(app, ("2001:db8:0:1::1", 50_000), **INVALID["cookie"]()), 401, "session-revoked")


def test_who_is_logged_in_is_let_in_whatever_else_comes_from_the_address(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(limits=FEW)
    access = app.state.service.access
    known = signed_in(app, "viewer", client=HERE)
    assert known.get("/api/predictions").status_code == 200
    _, key = access.keys.create("the-viewer", "job", ["predictions:read"])
    fill(app)
    problem(ask(app, HERE, **INVALID["cookie"]()), 429, "too-many-attempts")
    # nobody has seen these before, and what was known is forgotten with every change
    browser = TestClient(app, client=HERE, follow_redirects=False)
    sent = {"name": "the-viewer", "password": PASSWORD}
    assert browser.post("/login", data=sent, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    fresh = signed_in(app, "analyst", client=HERE)
    for name in ("one", "two"):
        access.roles.create(name, "viewer", [], by="system")
        assert known.get("/api/predictions").status_code == 200
        assert fresh.get("/api/predictions").status_code == 200
        assert browser.get("/api/predictions").status_code == 200
        assert ask(app, HERE, headers={"X-API-Key": key}).status_code == 200
    ticket = fresh.post("/api/events/ticket").json()["ticket"]
    assert access.tickets.redeem(ticket, Origin(HERE[0])).name == "the-analyst"


def test_a_token_that_has_run_out_is_told_so_that_its_program_renews_it(
    make_lone_app: Callable[..., FastAPI], clock: Clock
) -> None:
    app = make_lone_app(limits=FEW)
    client = signed_in(app, "viewer", client=HERE)
    fill(app)
    clock.forward(minutes=20)
    for _ in range(10):  # nor is it counted
        problem(client.get("/api/predictions"), 401, "token-expired")


def test_a_secret_from_before_there_were_seals_is_as_good_as_another(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(limits=FEW)
    access = app.state.service.access
    add_account(app, "ana", "viewer")
    access.logins.log_in("ana", PASSWORD, kind="console")
    old = "spc_" + secrets.token_urlsafe(32)
    with Session(access.engine) as session, session.begin():
        session.execute(update(SessionRow).values(secret_hash=digest(old)))
    assert ask(app, HERE, cookies={COOKIE: old}).status_code == 200
    fill(app)
    assert ask(app, HERE, cookies={COOKIE: old}).status_code == 200, "it is known"
    # only while its address sends made-up ones is it taken for one of them, once it was forgotten
    access.roles.create("one", "viewer", [], by="system")
    problem(ask(app, HERE, cookies={COOKIE: old}), 429, "too-many-attempts")
    assert ask(app, ELSEWHERE, cookies={COOKIE: old}).status_code == 200


def test_a_cookie_that_is_over_counts_and_the_log_in_page_is_no_way_around(
    make_lone_app: Callable[..., FastAPI],
) -> None:
    app = make_lone_app(limits=FEW)
    access = app.state.service.access
    add_account(app, "ana", "viewer")
    opened = access.logins.log_in("ana", PASSWORD, kind="console")
    access.sessions.revoke(opened.session.id, "test", by="system")
    for number in range(5):
        proof = {"cookies": {COOKIE: opened.cookie}} if number % 2 else INVALID["cookie"]()
        assert TestClient(app, client=HERE, **proof).get("/login").status_code == 200
    problem(ask(app, HERE, **INVALID["key"]()), 429, "too-many-attempts")
    for _ in range(10):  # whoever had a session that is over is led to the log-in, also beside a flood
        assert ask(app, HERE, cookies={COOKIE: opened.cookie}).status_code == 401
    assert TestClient(app, client=HERE, **INVALID["cookie"]()).get("/login").status_code == 200, "one can log in"


def test_a_ticket_that_is_made_up_counts(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(limits=FEW)
    redeem = app.state.service.access.tickets.redeem

    def told() -> AccessError:
        with pytest.raises(AccessError) as caught:
            redeem(f"spt_{secrets.token_urlsafe(40)}", Origin(HERE[0]))
        return caught.value

    assert [told().kind for _ in range(5)] == ["ticket-invalid"] * 5
    with looked_up(app) as seen:
        refused = told()
    assert (refused.status, refused.kind, seen) == (429, "too-many-attempts", [])
    problem(ask(app, HERE, **INVALID["token"]()), 429, "too-many-attempts")


# -------------------------------------------------------------------- connections that have not logged in yet
@pytest.mark.requirement("R5.1")
def test_a_websocket_hears_no_more_made_up_proofs_than_that(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(limits=FEW)

    async def told(address: str, **proof: str) -> tuple[int, str]:
        websocket = await connect(socket_address(address), open_timeout=120)
        await say(websocket, type="authenticate", **proof)
        return await ending(websocket)

    async def talk(address: str) -> None:
        for _ in range(5):
            assert (await told(address, ticket="spt_" + secrets.token_urlsafe(32)))[0] == 4401
        for proof in ({"ticket": "spt_x"}, {"token": "x"}):
            code, reason = await told(address, **proof)
            assert code == 4429
            assert "too many invalid" in reason
        await (await entered(address, log_in(address, app, "viewer"))).close()

    with served(app) as address:
        run_apart(talk(address))


@pytest.mark.requirement("R5.1")
def test_connections_that_wait_for_their_first_message_are_few_and_take_no_place_from_others(
    make_lone_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_ARRIVING_OF_ADDRESS", 2)
    monkeypatch.setattr(connections, "MOST_ARRIVING", 3)
    app = make_lone_app()
    live = app.state.live.connections

    async def talk(address: str) -> None:
        token = log_in(address, app, "viewer")
        member = await entered(address, token)

        async def idle(source: str) -> Any:
            return await connect(socket_address(address), open_timeout=120, local_addr=(source, 0))

        waiting = [await idle("127.0.0.1"), await idle("127.0.0.1")]
        assert await ending(await idle("127.0.0.1")) == (4429, "2 connections of this address have not logged in yet")
        waiting.append(await idle("127.0.0.2"))
        code, reason = await ending(await idle("127.0.0.3"))
        assert code == 4429
        assert "too many connections of the service have not logged in yet" in reason
        await member.send(json.dumps({"type": "ping"}))
        assert (await hear(member))["type"] == "pong", "who is logged in does not notice"
        for websocket in waiting:
            await websocket.close()
        await soon(lambda: not live.waiting, lambda: live.waiting)
        await (await entered(address, token)).close()
        await member.close()

    with served(app) as address:
        run_apart(talk(address))


@pytest.mark.requirement("R5.1")
def test_without_accounts_an_address_has_only_so_many_connections(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(anonymous_role="viewer", limits={"streams": 1})

    async def anonymous(address: str, source: str) -> Any:
        websocket = await connect(socket_address(address), open_timeout=120, local_addr=(source, 0))
        await say(websocket, type="authenticate")
        return websocket

    async def talk(address: str) -> None:
        first = await anonymous(address, "127.0.0.1")
        assert (await hear(first))["type"] == "authenticated"
        told = await ending(await anonymous(address, "127.0.0.1"))
        assert told == (4429, "this address has 1 connections already; end one of them")
        other = await anonymous(address, "127.0.0.2")
        assert (await hear(other))["type"] == "authenticated", "strangers elsewhere have their own"
        await first.close()
        await other.close()

    with served(app) as address:
        run_apart(talk(address))
