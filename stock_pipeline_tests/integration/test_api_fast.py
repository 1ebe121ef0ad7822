"""The fast path: the same answers and the same refusals as the routes, from ready bytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api import ready
from stock_pipeline.api.schemas import PredictionColumns, PredictionPage
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PublicationCache
from stock_pipeline_tests.accounts import tampered
from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account, app_for, signed_in, with_clock
from stock_pipeline_tests.asgi_calls import Asked, ask
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.published import SESSIONS, publish

PATHS = (
    "/api/predictions",
    "/api/predictions?symbol=S003",
    f"/api/predictions/{SESSIONS[0]}.S003.5",
    "/api/predictions?limit=10000",
    "/api/predictions?limit=10000&format=columns",
)


@contextmanager
def only_the_fast_path(app: FastAPI) -> Iterator[None]:
    """Take all routes away: what still answers is the fast path."""
    taken = list(app.router.routes)
    app.router.routes.clear()
    try:
        yield
    finally:
        app.router.routes.extend(taken)


@contextmanager
def only_the_routes(app: FastAPI) -> Iterator[None]:
    """Let the fast path know no question."""
    known, ready.find = ready.find, lambda *question: None  # type: ignore[assignment]
    try:
        yield
    finally:
        ready.find = known


def get(app: FastAPI, address: str, **headers: str) -> Asked:
    """Ask once, without a client in between."""
    path, _, query = address.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&")) if query else {}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return run_apart(ask(app, "GET", path, query=pairs, headers=sent))


def told(answer: Asked) -> dict[str, Any]:
    """What must be equal whoever answers."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "publication-age")}
    body: Any = answer.body
    if answer.kind:
        body = answer.kind
        headers.pop("content-length")
    return {"status": answer.status, "headers": headers, "body": body}


def token(app: FastAPI, role: str | None = "viewer") -> str:
    """The header of an account that has logged in."""
    return signed_in(app, role).headers["Authorization"]


@pytest.mark.requirement("A1", "P5", "R1.2")
def test_it_answers_as_the_routes_do(app: FastAPI) -> None:
    proof = token(app)
    for path in PATHS:
        for encoding in ("identity", "gzip", "gzip;q=0", "br, gzip;q=0.5", "*"):
            with only_the_routes(app):
                expected = get(app, path, authorization=proof, accept_encoding=encoding)
            with only_the_fast_path(app):  # a page is ready once somebody has asked for it
                found = get(app, path, authorization=proof, accept_encoding=encoding)
            assert found.status == 200
            assert told(found) == told(expected), path


@pytest.mark.requirement("A1", "R1.2")
def test_a_new_publication_comes_with_the_answers_of_all_symbols(published_lake: Lake) -> None:
    app = app_for(published_lake, poll_seconds=60)
    app.state.publications.refresh()
    proof = token(app)
    with only_the_fast_path(app):
        rows = get(app, "/api/predictions?limit=10000", authorization=proof, accept_encoding="gzip")
        columns = get(app, "/api/predictions?limit=10000&format=columns", authorization=proof)
    assert rows.headers["content-encoding"] == "gzip"
    page = PredictionPage.model_validate_json(gzip.decompress(rows.body))
    table = PredictionColumns.model_validate_json(columns.body)
    assert len(page.predictions) == page.total == table.total == 25
    assert table.columns["symbol"] == [row.symbol for row in page.predictions]
    assert table.columns["expected_return"] == pytest.approx(
        [row.expected_return for row in page.predictions], rel=1e-5
    )
    assert table.columns["close"] == [row.close for row in page.predictions]
    assert table.undefined == {f"{SESSIONS[0]}.S003.5": {"var_95": "not a number"}} | {
        f"{SESSIONS[0]}.S004.5": {"es_95": "infinite"}
    }
    assert {row.symbol: row.undefined for row in page.predictions if row.undefined} == {
        "S003": {"var_95": "not a number"},
        "S004": {"es_95": "infinite"},
    }


@pytest.mark.requirement("A1")
def test_heads_and_conditions(app: FastAPI) -> None:
    client = signed_in(app)
    first = client.get(PATHS[1])
    with only_the_fast_path(app):
        for header in (first.headers["etag"], f'"other", {first.headers["etag"]}', "*"):
            again = client.get(PATHS[1], headers={"If-None-Match": header})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            assert "content-length" not in again.headers
        assert client.get(PATHS[1], headers={"If-None-Match": '"other"'}).content == first.content
        head = client.head(PATHS[1])
        assert head.status_code == 200
        assert head.headers["content-length"] == first.headers["content-length"]
        for name in ("x-request-id", "content-security-policy", "x-content-type-options", "publication-age"):
            assert name in head.headers
        assert "private" in head.headers["cache-control"]
        assert client.post(PATHS[1]).status_code == 404  # only reads are ready


@pytest.mark.requirement("A1")
def test_what_it_does_not_know_is_left_to_the_routes(app: FastAPI) -> None:
    client = signed_in(app)
    unknown = (
        "/api/predictions?symbol=NOPE", "/api/predictions?symbol=S003&symbol=S004",
        "/api/predictions?symbol=S%30%30%33", "/api/predictions?limit=7", "/api/predictions/nope",
        f"/api/predictions/{SESSIONS[0]}.S003.5?x=1", "/api/predictionsx", "/api/predictions/",
    )  # fmt: skip
    with only_the_fast_path(app):
        for path in unknown:
            assert client.get(path).status_code == 404, path
    statuses = [client.get(path).status_code for path in unknown]
    assert statuses[:6] == [200, 200, 200, 200, 404, 422]


@pytest.mark.requirement("A1", "R1.2")
def test_a_newer_publication_takes_its_place_at_once(tmp_path) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0])
    cache = PublicationCache(lake)
    client = signed_in(app_for(lake, cache=cache, poll_seconds=60))
    cache.refresh()
    before = [client.get(path) for path in PATHS]
    publish(lake, SESSIONS[0], shift=1.0)
    assert cache.refresh()
    for path, old in zip(PATHS, before, strict=True):
        new = client.get(path, headers={"If-None-Match": old.headers["etag"]})
        assert new.status_code == 200
        assert new.content != old.content
        with only_the_routes(client.app):
            assert client.get(path).content == new.content


# ------------------------------------------------------------------ who asks
def refused_proofs(app: FastAPI, clock: Clock) -> dict[str, dict[str, str]]:
    """One set of headers for each way of not being let in."""
    access = app.state.service.access
    add_account(app, "reader", "viewer")
    expired = token(app)
    clock.forward(minutes=16)
    revoked = signed_in(app, "viewer", "gone").headers["Authorization"]
    for session in access.sessions.list(access.accounts.get("gone").id):
        access.sessions.revoke(session.id, "test", "system")
    disabled = signed_in(app, "viewer", "barred").headers["Authorization"]
    access.accounts.disable("barred", by="system")
    _, narrow = access.keys.create("reader", "narrow", ["risk:read"], by="system")
    key, ended = access.keys.create("reader", "ended", ["predictions:read"], by="system")
    access.keys.revoke(key.id, by="system")
    good = token(app)
    return {
        "none": {},
        "damaged": {"authorization": tampered(good)},
        "no form": {"authorization": "Basic dTpw"},
        "empty": {"authorization": "Bearer "},
        "expired": {"authorization": expired},
        "revoked": {"authorization": revoked},
        "disabled": {"authorization": disabled},
        "no role": {"authorization": token(app, None)},
        "narrow key": {"x_api_key": narrow},
        "ended key": {"x_api_key": ended},
        "two proofs": {"authorization": good, "x_api_key": narrow},
        "unknown cookie": {"cookie": f"{app.state.cookie_name}=nobody"},
    }


@pytest.mark.requirement("V8", "R8.2", "A1")
def test_nobody_gets_in_whom_the_routes_refuse(app: FastAPI, clock: Clock) -> None:
    proofs = refused_proofs(app, clock)
    for path in PATHS:
        assert get(app, path, authorization=token(app)).status == 200
        for name, headers in proofs.items():
            with only_the_routes(app):
                expected = get(app, path, **headers)
            found = get(app, path, **headers)
            assert expected.status in (401, 403), name
            assert told(found) == told(expected), name
            assert b"expected_return" not in found.body


@pytest.mark.requirement("V8", "R8.2")
def test_a_right_that_is_taken_away_is_gone_at_once(app: FastAPI) -> None:
    client = signed_in(app, "viewer", "guest")
    access = app.state.service.access
    with only_the_fast_path(app):
        assert client.get(PATHS[1]).status_code == 200
    access.roles.withdraw("guest", "viewer", "system")
    assert client.get(PATHS[1]).status_code == 403
    access.roles.assign("guest", "viewer", "system")
    assert client.get(PATHS[1]).status_code == 200


@pytest.mark.requirement("V8", "R8.2", "R8.1")
def test_every_good_proof_is_taken(app: FastAPI) -> None:
    access = app.state.service.access
    add_account(app, "reader", "viewer")
    _, key = access.keys.create("reader", "wide", ["predictions:read"], by="system")
    console = access.logins.log_in("reader", PASSWORD, kind="console")
    with only_the_fast_path(app):
        for headers in (
            {"x_api_key": key},
            {"authorization": f"Bearer {key}"},
            {"cookie": f"{app.state.cookie_name}={console.cookie}"},
        ):
            assert get(app, PATHS[1], **headers).status == 200, headers


@pytest.mark.requirement("V8", "R8.5")
def test_a_session_that_must_prove_itself_reads_here_as_on_the_routes(app: FastAPI) -> None:
    from sqlalchemy import update
    from sqlalchemy.orm import Session

    from stock_pipeline.access import versions
    from stock_pipeline.storage.database.tables.accounts import SessionRow

    client = signed_in(app)
    with Session(app.state.service.database) as session, session.begin():
        session.execute(update(SessionRow).values(step_up=True))
        versions.bump(session)
    with only_the_routes(app):
        expected = client.get(PATHS[1])
    with only_the_fast_path(app):
        found = client.get(PATHS[1])
    assert found.status_code == expected.status_code == 200


@pytest.mark.requirement("V8", "R8.5")
def test_limits_count_each_request_once_whoever_answers(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(limits={"read": "6/hour", "login": "1000/minute"})
    client = signed_in(app)
    mixed = (
        PATHS[1],
        "/api/predictions?limit=3",
        PATHS[2],
        "/api/predictions/nope",
        PATHS[1],
        "/api/predictions?limit=4",
    )
    assert [client.get(path).status_code for path in mixed] == [200, 200, 200, 404, 200, 200]
    refused = client.get(PATHS[1])
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["type"].endswith("rate-limited")


@pytest.mark.requirement("R8.4", "R8.5")
def test_rows_and_refusals_are_counted_once(app: FastAPI) -> None:
    access = app.state.service.access
    client, stranger = signed_in(app, "viewer", "guest"), signed_in(app, None, "stranger")
    for path in (PATHS[1], PATHS[1], PATHS[3], PATHS[2]):
        assert client.get(path).status_code == 200
    assert client.get(PATHS[1], headers={"If-None-Match": "*"}).status_code == 304  # holds no rows
    assert stranger.get(PATHS[1]).status_code == 403
    app.state.reads.flush(access.audit)
    entries = access.audit.entries(AuditFilter(), limit=100)
    reads = {entry.detail["route"]: entry.detail["rows"] for entry in entries if entry.action == "data.read"}
    assert reads == {"/api/predictions": 27, "/api/predictions/{prediction_id}": 1}
    assert len([entry for entry in entries if entry.actor == "stranger" and entry.result == "refused"]) == 1


@pytest.fixture(scope="module")
def guarded(published_lake: Lake) -> tuple[FastAPI, list[str]]:
    """An application, and proofs of which every other one is good."""
    limits = {"read": "1000000/second", "failures": "1000000/second"}
    app = with_clock(app_for(published_lake, poll_seconds=60, sections={"access": {"limits": limits}}), Clock())
    app.state.publications.refresh()
    access = app.state.service.access
    good = token(app)
    _, key = access.keys.create("the-viewer", "wide", ["predictions:read"], by="system")
    _, narrow = access.keys.create("the-viewer", "narrow", ["risk:read"], by="system")
    return app, [good, token(app, None), f"Bearer {key}", f"Bearer {narrow}"]


@pytest.mark.requirement("V8")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_proof_however_bent_gets_more_here_than_on_the_routes(guarded, data) -> None:
    app, proofs = guarded
    proof = data.draw(st.sampled_from(proofs))
    place = data.draw(st.integers(0, len(proof) - 1))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=3))
    bent = proof[:place] + put + proof[place + cut :]
    headers = {data.draw(st.sampled_from(["authorization", "x-api-key", "cookie"])): bent}
    path = data.draw(st.sampled_from(PATHS))
    with only_the_routes(app):
        expected = get(app, path, **headers)
    assert told(get(app, path, **headers)) == told(expected)
    assert expected.status in (200, 401, 403)


def test_kept_answers_stay_within_their_budget() -> None:
    from stock_pipeline.api.answers import Answer, Answers

    kept = Answers(budget=50_000)
    for number in range(100):
        kept.keep(number, Answer(b"x" * 4_000, "text/plain", f'W/"{number}"'))
        kept.get(0)
    assert len(kept) < 12
    assert kept.get(0) is not None  # asked for all the time
    assert kept.get(1) is None
    kept.keep("huge", Answer(b"x" * 60_000, "text/plain", "tag"))
    assert kept.get("huge") is None
