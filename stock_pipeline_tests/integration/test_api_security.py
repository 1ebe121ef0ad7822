"""What attackers send: bad bodies, bad tokens, bad headers, injections, forged requests of browsers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.api import bodies, patience
from stock_pipeline.api.bodies import MAX_BYTES, MAX_DEPTH
from stock_pipeline.api.limits import PASSWORDS_AT_ONCE
from stock_pipeline_tests.api_service import PASSWORD, Clock, add_account, problem, signed_in
from stock_pipeline_tests.filled import body_of, path_of
from stock_pipeline_tests.serving import served

pytestmark = pytest.mark.requirement("R8.2")

MARKUP = "<img src=x onerror=alert(1)>"
CHECKED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


def console(app: FastAPI, name: str, role: str = "administrator", **options: Any) -> TestClient:
    """A browser that has logged in to the console."""
    add_account(app, name, role)
    browser = TestClient(app, follow_redirects=False, **options)
    answer = browser.post(
        "/login", data={"name": name, "password": PASSWORD, "next": "/"}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status_code == 303, answer.text
    return browser


def connected(address: str) -> socket.socket:
    """A connection to the service on which a test says what it likes."""
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=180)


def all_of(wire: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := wire.recv(65536):
            got += part
    return got


# -------------------------------------------------------------------- bodies
def test_oversized_bodies_are_refused_before_they_are_read(lone_app: FastAPI) -> None:
    client = TestClient(lone_app)
    body = b'{"name": "' + b"a" * MAX_BYTES + b'"}'
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 413, "body-too-large")
    assert answer.headers["connection"] == "close"

    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_BYTES:
            sent += 100_000
            yield b"a" * 100_000

    answer = client.post("/api/auth/login", content=endless(), headers={"Content-Type": "application/json"})
    problem(answer, 413, "body-too-large")


def test_a_body_that_does_not_arrive_is_not_waited_for(lone_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_SECONDS", 0.05)
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with served(lone_app) as address, connected(address) as wire:
        wire.sendall(head + b"Content-Length: 9\r\n\r\n{")
        got = all_of(wire)
    assert got.startswith(b"HTTP/1.1 408")
    assert b"body-too-slow" in got


def test_a_head_that_does_not_arrive_is_not_waited_for(lone_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served(lone_app))
        wires = [stack.enter_context(connected(address)) for _ in range(2)]
        answered = []
        for wire, sent in zip(wires, (whole + whole[:-2], whole), strict=True):
            wire.sendall(sent)
            answered.append(wire.recv(65536))
        monkeypatch.setattr(patience, "HEAD_SECONDS", 1.0)  # only now: a busy machine may take longer for a whole head
        wires[1].sendall(whole[:-2])  # a part after a whole request, that came with it and by itself
        for first, wire in zip(answered, wires, strict=True):
            assert (first + all_of(wire)).count(b"HTTP/1.1 200") == 1
        for sent in (b"", whole[:-2]):  # nothing, and a part
            with connected(address) as wire:
                wire.sendall(sent)
                assert all_of(wire) == b"", sent


def test_a_head_that_arrives_in_time_is_answered_however_long_the_answer_takes(
    lone_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 1.0)
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    rest = b"Content-Length: 2\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
    with served(lone_app) as address, contextlib.ExitStack() as stack:
        for _ in range(100):  # on a busy machine a head may come too late
            wire = stack.enter_context(connected(address))
            with contextlib.suppress(ConnectionError):
                wire.sendall(head + rest)
                if wire.recv(65536).startswith(b"HTTP/1.1 100"):
                    break
        with connected(address) as later:
            all_of(later)  # the body comes when a head that comes later has been given up
        wire.sendall(b"{}")
        assert all_of(wire).startswith(b"HTTP/1.1 422")


def test_a_flood_of_log_ins_holds_up_nobody_else(
    make_lone_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    unblocked = {"address_failures": 1_000, "stuffing_accounts": 1_000}
    app = make_lone_app(limits={"login": "1000/minute"}, abuse=unblocked)
    reader = signed_in(app, "viewer")
    passwords, go_on = app.state.service.access.passwords, threading.Event()
    verify, hashing = passwords.verify, threading.Semaphore(0)

    def slow(password: str, stored: str | None) -> tuple[bool, str | None]:
        hashing.release()
        assert go_on.wait(240)
        return verify(password, stored)

    monkeypatch.setattr(passwords, "verify", slow)
    statuses: list[int] = []

    def try_one(number: int) -> None:
        given = {"name": f"nobody{number}", "password": "whatever this is"}
        statuses.append(httpx.post(f"{address}/api/auth/login", json=given, timeout=240).status_code)

    with served(app) as address:
        flood = [threading.Thread(target=try_one, args=(number,)) for number in range(60)]
        for thread in flood:
            thread.start()
        try:
            for _ in range(PASSWORDS_AT_ONCE):
                assert hashing.acquire(timeout=120)
            for _ in range(50):  # while all of them are there
                answer = httpx.get(f"{address}/api/tasks", headers=reader.headers, timeout=120)
                assert answer.status_code == 200
            assert not hashing.acquire(blocking=False)
        finally:
            go_on.set()
            for thread in flood:
                thread.join(240)
    assert statuses == [401] * 60


def test_deep_json_is_refused(lone_app: FastAPI) -> None:
    client = TestClient(lone_app, headers={"Content-Type": "application/json"})

    def nested(depth: int, opened: str = "[", closed: str = "]") -> str:
        return opened * depth + closed * depth

    problem(client.post("/api/auth/login", content=nested(MAX_DEPTH)), 422, "invalid-parameters")
    for body in (
        nested(MAX_DEPTH + 1),
        nested(1000),
        nested(400_000),
        "[" * 400_000,
        '{"a":' * 100 + "1" + "}" * 100,
        '{"name":"[[[","x":' + nested(MAX_DEPTH + 1) + "}",
    ):
        problem(client.post("/api/auth/login", content=body), 400, "invalid-json")
    text = json.dumps({"name": "x", "password": "[" * 900 + '"{\\'})
    problem(client.post("/api/auth/login", content=text), 401, "invalid-credentials")


def test_only_json_is_a_body_of_the_api(lone_app: FastAPI) -> None:
    client = TestClient(lone_app)
    good = json.dumps({"name": "x", "password": "y"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", ""):
        answer = client.post("/api/auth/login", content=good, headers={"Content-Type": kind})
        problem(answer, 415, "unsupported-media-type")
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(client.post("/api/auth/login", content=good, headers=packed), 415, "unsupported-media-type")
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    problem(client.post("/api/auth/login", content=good, headers=json_type), 401, "invalid-credentials")
    for body in (b"{", b"\xff\xfe", b'{"name": NaN}', b'{"name": "\\ud800"}', b"\x00", b"{}{}", b'{"a":1,}'):
        problem(client.post("/api/auth/login", content=body, headers=json_type), 400, "invalid-json")
    for body in (b'{"name": "a\\u0000b", "password": "x"}', b'{"a\\u0000": 1}'):
        problem(client.post("/api/auth/login", content=body, headers=json_type), 400, "invalid-characters")
    problem(client.get("/api/predictions?symbol=%00"), 400, "invalid-characters")
    problem(client.get("/api/predictions/%00"), 400, "invalid-characters")


def test_wrong_types_are_named_and_never_an_error_of_the_service(lone_app: FastAPI) -> None:
    client = signed_in(lone_app, "administrator", raise_server_exceptions=False)
    document = lone_app.openapi()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            good = body_of(document, operation)
            bad: list[Any] = [[], "x", 1, None, True, {"unknown": 1}, [good]]
            for name in good:
                bad += [
                    {**good, name: value} for value in ({"a": []}, [[]], -(10**40), 1e308, "", "\u202e", "x" * 5000)
                ]
            for body in bad:
                answer = client.request(method, path_of(path, {}), json=body)
                asked += 1
                assert answer.status_code in (200, 201, 202, 204, 400, 401, 403, 404, 409, 422, 429, 503), (
                    path, body, answer.text,
                )  # fmt: skip
                may_be_absent = body is None and not operation["requestBody"].get("required", False)
                if (not isinstance(body, dict) or "unknown" in body) and not may_be_absent:
                    assert answer.status_code == 422, (path, body, answer.text)
    assert asked > 200


@pytest.mark.parametrize(
    "query", ["limit=1000000", "limit=-1", f"limit={10**40}", "limit=1e3", "cursor=" + "A" * 5000, "limit="]
)
def test_huge_pages_are_refused(lone_app: FastAPI, query: str) -> None:
    client = signed_in(lone_app, "administrator")
    for path in ("/api/predictions", "/api/users", "/api/audit"):
        assert client.get(f"{path}?{query}").status_code in (400, 422), path
    forged = base64.urlsafe_b64encode(json.dumps(["0" * 16, 10**30]).encode()).decode().rstrip("=")
    problem(client.get(f"/api/users?cursor={forged}"), 400, "invalid-cursor")


def test_an_answer_does_not_repeat_a_secret(
    lone_app: FastAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("stock_pipeline"), "propagate", True)
    secret = "hunter2-hunter2-hunter2"
    client = signed_in(lone_app, "administrator")
    token = client.headers["Authorization"].split()[1]
    answers = [
        client.post("/api/auth/login", json={"name": "x", "password": [secret]}),
        client.post("/api/auth/login", json={"name": 1, "password": secret}),
        client.post("/api/auth/login", json={"password": secret}),
        client.post("/api/auth/login", json={"name": "x", "password": secret, "code": secret}),
        client.post("/api/auth/refresh", json={"refresh_token": secret, secret: 1}),
        client.post("/api/users", json={"name": "x", "password": secret * 100}),
        client.post("/api/auth/password", json={"old_password": secret, "new_password": {"a": secret}}),
        client.post("/api/users", json={"name": "ana", "password": secret}),
    ]
    for answer in answers[:4] + answers[5:]:
        assert secret not in answer.text
    trail = client.get("/api/audit", params={"limit": 1000}).text
    for text in (trail, caplog.text):
        assert secret not in text
        assert token not in text
        assert PASSWORD not in text


# -------------------------------------------------------------------- injections
def test_sql_in_values_finds_nothing_and_breaks_nothing(app: FastAPI) -> None:
    client = signed_in(app, "administrator")
    add_account(app, "ana", "viewer")
    for text in ("' OR '1'='1", "x'; DROP TABLE account; --", '" OR ""="', "%", "_", "\\", "1) UNION SELECT 1 --"):
        assert client.get("/api/users", params={"search": text}).json()["items"] == []
        assert client.get("/api/audit", params={"actor": text}).json()["items"] == []
        assert client.get("/api/audit", params={"action": text + ".*"}).json()["items"] == []
        assert client.get(f"/api/users/{text}").status_code in (404, 422)
        assert client.get(f"/api/predictions/{text}").status_code == 404
        assert client.get("/api/predictions", params={"symbol": text}).json()["predictions"] == []
        answer = TestClient(app).post("/api/auth/login", json={"name": text, "password": PASSWORD})
        problem(answer, 401, "invalid-credentials")
    assert [item["name"] for item in client.get("/api/users").json()["items"]] == ["the-administrator", "ana"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/....//app.py",
        "/static/..\\app.py",
        "/reference/..%2f..%2f..%2fetc%2fpasswd",
        "/reports/data_docs/..%2f..%2fmarket.yaml",
        "/reports/backtests/..%2f..%2f..%2fmarket.yaml",
        "/reports/backtests/%2fetc%2fpasswd",
        "/api/backtests/..%2f..%2fmarket",
        "/api/models/..%2f..%2fx/card",
        "/api/symbols/..%2f..%2f..%2fetc%2fpasswd",
    ],
)
def test_paths_lead_nowhere_else(lone_app: FastAPI, path: str) -> None:
    client = signed_in(lone_app, "administrator")
    answer = client.get(path)
    assert answer.status_code in (404, 422), answer.text[:200]
    assert "root:" not in answer.text
    assert "calendar: XNYS" not in answer.text


# -------------------------------------------------------------------- headers
def test_a_forged_forwarding_header_counts_for_nothing(make_lone_app: Callable[..., FastAPI]) -> None:
    def address(app: FastAPI, peer: str, *headers: tuple[str, str]) -> str:
        client = TestClient(app, client=(peer, 50_000))
        sent = {"name": "ana", "password": PASSWORD}
        assert client.post("/api/auth/login", json=sent, headers=list(headers)).status_code == 200
        found: str = app.state.service.access.audit.entries(limit=1)[0].address
        return found

    app = make_lone_app()
    add_account(app, "ana", "viewer")
    assert address(app, "192.0.2.7", ("X-Forwarded-For", "198.51.100.1")) == "192.0.2.7"
    assert address(app, "192.0.2.7", ("X-Real-IP", "198.51.100.1"), ("Forwarded", "for=198.51.100.1")) == "192.0.2.7"

    app = make_lone_app(trusted_proxies=["10.0.0.0/8", "::1/128"])
    add_account(app, "ana", "viewer")
    name = "X-Forwarded-For"
    assert address(app, "192.0.2.7", (name, "198.51.100.1")) == "192.0.2.7"
    assert address(app, "10.0.0.1", (name, "198.51.100.1")) == "198.51.100.1"
    assert address(app, "10.0.0.1", (name, "203.0.113.9, 198.51.100.1, 10.0.0.2")) == "198.51.100.1"
    assert address(app, "10.0.0.1", (name, "203.0.113.9"), (name, "198.51.100.1")) == "198.51.100.1"
    assert address(app, "::1", (name, "2001:db8::1")) == "2001:db8::1"
    for odd in ("", "unknown", "' OR 1=1", "999.1.1.1", MARKUP, "127.0.0.1:80"):
        assert address(app, "10.0.0.1", (name, odd)) == "10.0.0.1"


def test_other_header_tricks(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(allowed_hosts=("testserver",))
    client = signed_in(app, "administrator")
    for host in ("evil.example", "testserver.evil.example", "testserver@evil.example", "", "127.0.0.1"):
        problem(client.get("/api/auth/me", headers={"Host": host}), 400, "unknown-host")
    twice = [("Host", "testserver"), ("Host", "testserver")]
    problem(client.get("/api/auth/me", headers=twice), 400, "unknown-host")
    token = client.headers["Authorization"]
    doubled = [("Authorization", token), ("Authorization", token)]
    problem(TestClient(app).get("/api/auth/me", headers=doubled), 401, "token-invalid")
    for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        assert client.get("/api/users/the-administrator", headers={name: "DELETE"}).status_code == 200
    problem(client.request("TRACE", "/api/users"), 405, "method-not-allowed")
    problem(client.request("GETTING", "/api/users"), 405, "method-not-allowed")
    for odd in ("a b", "x" * 65, "<script>", "short", "täg-täg-täg"):
        answer = client.get("/api/auth/me", headers={"X-Request-ID": odd.encode()})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    for name in ("X-Original-URL", "X-Rewrite-URL"):
        assert client.get("/healthz", headers={name: "/api/users"}).json()["status"] == "ok"
    problem(client.get("/api/users/"), 404, "not-found")


def test_malformed_requests_on_the_wire(lone_app: FastAPI) -> None:
    def answer(address: str, raw: bytes) -> bytes:
        with connected(address) as wire:
            # a server that refuses may close the connection before it has taken everything
            with contextlib.suppress(OSError):
                wire.sendall(raw)
                wire.shutdown(socket.SHUT_WR)
            return all_of(wire)

    login = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    plain = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with served(lone_app) as address:
        assert answer(address, plain).startswith(b"HTTP/1.1 200")
        for raw in (
            login + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
            login + b"Content-Length: -1\r\n\r\n{}",
            login + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            login + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Bad: a\x00b\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
            b"GET /heal\x00thz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        ):
            got = answer(address, raw)
            assert not got.startswith(b"HTTP/1.1 200"), raw[:80]
            assert b"access_token" not in got
        split = plain.replace(b"\r\n\r\n", b"\r\nX-Request-ID: abcd1234%0d%0aSet-Cookie:x=1\r\n\r\n")
        assert b"set-cookie" not in answer(address, split).lower()
        assert answer(address, plain).startswith(b"HTTP/1.1 200")


def test_every_answer_has_the_security_headers_and_no_other_origin_may_read(lone_app: FastAPI) -> None:
    client = signed_in(lone_app, "administrator")
    answers = [
        client.get("/api/auth/me"),
        client.get("/nothing"),
        client.get("/"),
        client.get("/docs"),
        client.get("/openapi.json"),
        client.get("/api/predictions"),
        TestClient(lone_app).get("/api/predictions"),
        TestClient(lone_app).get("/login"),
        client.post("/api/auth/login", content=b"x", headers={"Content-Type": "text/plain"}),
        client.get("/api/predictions?symbol=%00"),
        client.options(
            "/api/users", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        ),
        client.get("/api/users", headers={"Origin": "https://evil.example"}),
    ]
    for answer in answers:
        for name, value in CHECKED.items():
            assert answer.headers[name] == value, (answer.url, name)
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "server" not in answer.headers
    for answer in (answers[0], answers[6], answers[11], client.get("/api/audit"), client.get("/api/account/keys")):
        assert answer.headers["cache-control"] == "no-store"
    assert "private" in answers[5].headers["cache-control"]
    assert "strict-transport-security" not in answers[0].headers


# -------------------------------------------------------------------- tokens
def test_algorithm_confusion_and_none_tokens(lone_app: FastAPI) -> None:
    add_account(lone_app, "root", "administrator")
    good = TestClient(lone_app).post("/api/auth/login", json={"name": "root", "password": PASSWORD}).json()
    token = good["access_token"]
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    key = lone_app.state.service.access.tokens.jwks()["keys"][0]
    public = jwt.PyJWK(key).key
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def encoded(part: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")

    def signed(alg: str, secret: bytes) -> str:
        body = f"{encoded({**header, 'alg': alg})}.{encoded(claims)}"
        seal = hmac.new(secret, body.encode(), hashlib.sha256).digest()
        return f"{body}.{base64.urlsafe_b64encode(seal).decode().rstrip('=')}"

    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = ed25519.Ed25519PrivateKey.generate()
    head, payload, seal = token.split(".")
    late = {**claims, "exp": claims["exp"] + 10_000}
    forged = [
        *(f"{encoded({**header, 'alg': alg})}.{payload}." for alg in ("none", "None", "NONE", "nOnE", "")),
        *(
            f"{encoded({**header, 'alg': alg})}.{payload}.{seal}"
            for alg in ("none", "HS256", "RS256", "ES256", "eddsa")
        ),
        *(signed(alg, secret) for alg in ("HS256", "EdDSA") for secret in (raw, pem, key["x"].encode(), b"")),
        jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": header["kid"]}),
        jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": header["kid"], "jwk": key}),
        jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": "../../../etc/passwd"}),
        jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": "' UNION SELECT 1"}),
        jwt.encode(claims, other, algorithm="EdDSA", headers={"jku": "https://evil.example/jwks.json"}),
        jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": header["kid"]}),
        f"{head}.{encoded(late)}.{seal}",
        f"{head}.{payload}",
        f"{head}.{payload}.{seal}.{seal}",
        f"{head}..{seal}",
        f"{encoded([])}.{payload}.{seal}",  # type: ignore[arg-type]
        f"{head}.{encoded([])}.{seal}",  # type: ignore[arg-type]
        good["refresh_token"],
        token + "=",
        token.swapcase(),
        "." * 1000,
        "e" * 100_000,
        "\u00e9\u00e9\u00e9",
    ]
    nobody = TestClient(lone_app)
    for bad in forged:
        answer = nobody.get("/api/auth/me", headers={"Authorization": b"Bearer " + bad.encode()})
        problem(answer, 401, "token-invalid")
    assert nobody.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_tokens_of_another_installation_and_of_a_dropped_key_are_refused(
    make_lone_app: Callable[..., FastAPI], clock: Clock
) -> None:
    app, other = make_lone_app(), make_lone_app()
    token = signed_in(other, "administrator").headers["Authorization"]
    problem(TestClient(app, headers={"Authorization": token}).get("/api/auth/me"), 401, "token-invalid")
    client = signed_in(app, "administrator")
    app.state.service.access.rotate_keys("system", drop_old=True)
    problem(client.get("/api/auth/me"), 401, "token-invalid")


# -------------------------------------------------------------------- log-in
def test_an_unknown_name_costs_as_much_and_says_as_much_as_a_wrong_password(lone_app: FastAPI) -> None:
    add_account(lone_app, "ana", "viewer")
    add_account(lone_app, "gone", "viewer")
    lone_app.state.service.access.accounts.disable("gone", "system")
    lone_app.state.service.access.accounts.create("no-password", by="system")
    client = TestClient(lone_app)
    passwords = lone_app.state.service.access.passwords
    counted: dict[str, int] = {}
    texts = set()
    for name in ("ana", "nobody", "gone", "no-password"):
        work = passwords._hasher.verify_and_update
        with mock.patch.object(passwords._hasher, "verify_and_update", wraps=work) as verify:
            answer = client.post("/api/auth/login", json={"name": name, "password": "a wrong password 123"})
        counted[name] = verify.call_count
        body = problem(answer, 401, "invalid-credentials")
        del body["request_id"]
        texts.add(json.dumps(body))
    assert set(counted.values()) == {1}
    assert len(texts) == 1


@pytest.mark.requirement("R8.5")
def test_guessing_is_slowed_and_locked_also_with_forged_addresses(
    make_lone_app: Callable[..., FastAPI], clock: Clock
) -> None:
    app = make_lone_app(abuse={"failures_before_delay": 3, "failures_before_lock": 6})
    add_account(app, "ana", "viewer")
    client = TestClient(app, client=("192.0.2.66", 50_000))
    statuses = []
    for number in range(40):
        answer = client.post(
            "/api/auth/login",
            json={"name": "ana", "password": f"guess number {number}"},
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        )
        statuses.append(answer.status_code)
        if answer.status_code in (423, 429):
            assert int(answer.headers["retry-after"]) >= 1
            clock.forward(seconds=float(answer.headers["retry-after"]) if answer.status_code == 429 else 1)
    assert statuses[:3] == [401, 401, 401]
    assert 429 in statuses
    assert 423 in statuses
    answer = client.post("/api/auth/login", json={"name": "ana", "password": PASSWORD})
    assert answer.status_code in (423, 429)
    clock.forward(hours=2)
    assert client.post("/api/auth/login", json={"name": "ana", "password": PASSWORD}).status_code == 200
    assert "abuse.brute_force" in {entry.action for entry in app.state.service.access.audit.entries()}


@pytest.mark.requirement("R8.5")
def test_impossible_travel_leaves_reading_until_the_session_proves_itself(
    make_lone_app: Callable[..., FastAPI], clock: Clock
) -> None:
    app = make_lone_app(
        places=[
            {"network": "192.0.2.0/24", "name": "Berlin", "latitude": 52.5, "longitude": 13.4},
            {"network": "198.51.100.0/24", "name": "Tokyo", "latitude": 35.7, "longitude": 139.7},
        ]
    )
    signed_in(app, "administrator", client=("192.0.2.1", 50_000))
    clock.forward(minutes=10)
    far = signed_in(app, "administrator", client=("198.51.100.1", 50_000))
    assert far.get("/api/auth/me").json()["step_up"] is True
    assert far.get("/api/users").status_code == 200
    for refused in (
        far.post("/api/users", json={"name": "eve", "password": PASSWORD}),
        far.post("/api/account/keys", json={"name": "x", "scopes": ["users:read"], "password": PASSWORD}),
        far.post("/api/auth/second-factor", json={"password": PASSWORD}),
        far.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": "another quiet one 88"}),
        far.delete("/api/users/the-administrator"),
    ):
        problem(refused, 403, "step-up-required")
    problem(far.post("/api/auth/step-up", json={"password": "wrong wrong wrong"}), 401, "invalid-credentials")
    assert far.post("/api/auth/step-up", json={"password": PASSWORD}).status_code == 204
    assert far.post("/api/users", json={"name": "eve", "password": PASSWORD}).status_code == 201


@pytest.mark.requirement("R8.5")
def test_requests_are_limited_by_class(make_lone_app: Callable[..., FastAPI]) -> None:
    app = make_lone_app(limits={"read": "5/hour", "write": "3/hour", "login": "4/hour"})
    client = signed_in(app, "administrator")  # one log-in
    reads = [client.get("/api/auth/me").status_code for _ in range(7)]
    assert reads == [200] * 5 + [429] * 2
    writes = [client.post("/api/users", json={}).status_code for _ in range(4)]
    assert writes == [422] * 3 + [429]
    limited = client.post("/api/users", json={})
    problem(limited, 429, "rate-limited")
    assert int(limited.headers["retry-after"]) >= 1
    assert limited.headers["ratelimit-limit"] == "3"
    assert limited.headers["ratelimit-remaining"] == "0"
    assert limited.headers["ratelimit-reset"] == limited.headers["retry-after"]
    nobody = TestClient(app)
    tries = [
        nobody.post(
            "/api/auth/refresh", json={"refresh_token": "x"}, headers={"X-Forwarded-For": f"198.51.100.{number}"}
        ).status_code
        for number in range(5)
    ]
    assert tries == [401] * 3 + [429] * 2
    other = TestClient(app, client=("203.0.113.5", 50_000))
    assert other.post("/api/auth/refresh", json={"refresh_token": "x"}).status_code == 401
    assert client.get("/healthz").status_code == 200


# -------------------------------------------------------------------- browsers
def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(make_lone_app: Callable[..., FastAPI]) -> None:
    def cookie(**access: Any) -> str:
        app = make_lone_app(**access)
        add_account(app, "ana", "viewer")
        answer = TestClient(app, follow_redirects=False).post(
            "/login", data={"name": "ana", "password": PASSWORD}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        found: str = answer.headers["set-cookie"]
        if access:
            assert answer.headers["strict-transport-security"].startswith("max-age=")
        return found

    plain, secure = cookie(), cookie(secure_cookies=True)
    assert plain.startswith("stock_pipeline_session=")
    assert secure.startswith("__Host-stock_pipeline_session=")
    for text in (plain, secure):
        assert "; httponly" in text.lower()
        assert "; samesite=lax" in text.lower()
        assert "; path=/" in text.lower()
        assert "domain" not in text.lower()
    assert "; secure" in secure.lower()


def test_a_session_is_not_taken_over_from_before_the_log_in(lone_app: FastAPI) -> None:
    add_account(lone_app, "ana", "viewer")
    browser = TestClient(
        lone_app, follow_redirects=False, cookies={"stock_pipeline_session": "spc_chosen-by-an-attacker"}
    )
    answer = browser.post(
        "/login", data={"name": "ana", "password": PASSWORD}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    first = answer.cookies["stock_pipeline_session"]
    assert first != "spc_chosen-by-an-attacker"
    problem(
        TestClient(lone_app, cookies={"stock_pipeline_session": "spc_chosen-by-an-attacker"}).get("/api/auth/me"),
        401,
        "session-revoked",
    )
    second = console(lone_app, "ana").cookies["stock_pipeline_session"]
    assert second != first
    mine = TestClient(lone_app, cookies={"stock_pipeline_session": first})
    csrf = mine.get("/api/auth/me").json()["csrf_token"]
    assert mine.post("/api/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 204
    problem(TestClient(lone_app, cookies={"stock_pipeline_session": first}).get("/api/auth/me"), 401, "session-revoked")
    # a cookie is no token, and a token no cookie
    problem(
        TestClient(lone_app, headers={"Authorization": f"Bearer {second}"}).get("/api/auth/me"), 401, "token-invalid"
    )


def test_another_site_cannot_act_with_the_cookie(lone_app: FastAPI) -> None:
    browser, other = console(lone_app, "root"), console(lone_app, "rival")
    token, foreign = (one.get("/api/auth/me").json()["csrf_token"] for one in (browser, other))
    body = {"name": "eve", "password": PASSWORD}
    for headers in (
        {},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": foreign},
        {"X-CSRF-Token": token[:-1]},
        {"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": token, "Sec-Fetch-Site": "same-site"},
    ):
        problem(browser.post("/api/users", json=body, headers=headers), 403, "csrf")
        problem(browser.delete("/api/users/rival", headers=headers), 403, "csrf")
        problem(browser.post("/users", data={"name": "eve"}, headers=headers), 403, "csrf")
    problem(browser.post("/users", data={"name": "eve", "csrf_token": foreign}), 403, "csrf")
    kinds = ("text/plain", "application/x-www-form-urlencoded")
    for kind in kinds:  # what a form of another site can send
        answer = browser.post("/api/users", content=json.dumps(body), headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert browser.post("/api/users", json=body, headers={"X-CSRF-Token": token}).status_code == 201
    assert browser.get("/api/users", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
        "/%5cevil.example@", "https:evil.example", "/\t/evil.example", "///evil.example", " //evil.example", "",
    ],
)  # fmt: skip
def test_a_log_in_leads_nowhere_else(lone_app: FastAPI, elsewhere: str) -> None:
    add_account(lone_app, "ana", "viewer")
    browser = TestClient(lone_app, follow_redirects=False)
    sent = {"name": "ana", "password": PASSWORD, "next": elsewhere}
    answer = browser.post("/login", data=sent, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303
    target = answer.headers["location"]
    assert re.match(r"/(?![/\\])", target)
    assert "evil.example" not in target or target.startswith("/%5c")
    answer = browser.get("/login", params={"next": elsewhere})
    assert re.match(r"/(?![/\\])", answer.headers["location"])
    for path in ("//evil.example", "/api/users//evil.example", "/login//evil.example/.."):
        found = browser.get(f"http://testserver{path}")
        assert "evil.example" not in found.headers.get("location", "")


def test_names_cannot_carry_markup(app: FastAPI) -> None:
    client = signed_in(app, "administrator")
    for answer in (
        client.post("/api/users", json={"name": MARKUP, "password": PASSWORD}),
        client.post("/api/users", json={"name": "ana\u202enimda", "password": PASSWORD}),
        client.post("/api/users", json={"name": "аna", "password": PASSWORD}),  # a Cyrillic a
        client.post("/api/roles", json={"name": MARKUP}),
        client.post("/api/account/keys", json={"name": MARKUP, "scopes": ["users:read"], "password": PASSWORD}),
    ):
        problem(answer, 422, "invalid-parameters")
    TestClient(app, headers={"User-Agent": MARKUP}).post(
        "/api/auth/login", json={"name": "the-administrator", "password": PASSWORD}
    )
    for path in ("/api/account/sessions", "/api/audit"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2020-02-30", "1e9", "9" * 30, "now"]
)
def test_instants_beyond_the_calendar_are_refused(lone_app: FastAPI, instant: str) -> None:
    client = signed_in(lone_app, "administrator")
    asked = 0
    for path, operations in lone_app.openapi()["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if "date-time" in json.dumps(parameter["schema"]):
                answer = client.get(path_of(path, {}), params={parameter["name"]: instant})
                assert 400 <= answer.status_code < 500, (path, answer.text)
                asked += 1
    assert asked >= 6
