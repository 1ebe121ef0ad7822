"""Events by number and by Server-Sent Events."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from stock_pipeline.access.principal import Origin
from stock_pipeline.api.app import create_app
from stock_pipeline.api.streams import connections, server_sent
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.tasks import EventLog
from stock_pipeline_tests.api_service import PASSWORD, add_account, service_for, signed_in
from stock_pipeline_tests.serving import log_in, served
from stock_pipeline_tests.streaming import SMALL_BUFFER, append, planned
from stock_pipeline_tests.waiting import wait_until

SMALL = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)]


@pytest.fixture
def app(tmp_path: Path, database_address: str) -> Iterator[FastAPI]:
    service = service_for(Lake(tmp_path / "lake"), storage={"metadata": database_address})
    yield create_app(service)
    service.database.dispose()


@pytest.fixture
def sqlite_app(tmp_path: Path, sqlite_address: str) -> Iterator[FastAPI]:
    service = service_for(Lake(tmp_path / "lake"), storage={"metadata": sqlite_address})
    yield create_app(service)
    service.database.dispose()


def engine_of(app: FastAPI) -> Engine:
    engine: Engine = app.state.service.database
    return engine


@pytest.mark.requirement("R5.1", "V5")
def test_events_are_read_page_by_page_without_loss_or_repetition(app: FastAPI) -> None:
    engine = engine_of(app)
    with signed_in(app, "viewer", "ada") as ada:
        assert ada.get("/api/events").json() == {"items": [], "next_since": 0, "newest": 0, "oldest": 1, "gap": False}
        append(engine, [planned(number, ("ada", "bob")) for number in range(1, 101)])

        def pages(**filters: Any) -> list[int]:
            seen: list[int] = []
            since, rounds = 0, 0
            while True:
                page = ada.get("/api/events", params={"since": since, "limit": 7, **filters}).json()
                seen += [item["sequence"] for item in page["items"]]
                since, rounds = page["next_since"], rounds + 1
                if rounds == 5:  # the log grows while it is read
                    newest = page["newest"]
                    append(engine, [planned(number, ("ada", "bob")) for number in range(newest + 1, newest + 4)])
                if since >= EventLog(engine).newest():
                    return seen

        def numbers(wanted: Callable[[int], bool]) -> list[int]:
            return [number for number in range(1, EventLog(engine).newest() + 1) if wanted(number)]

        assert pages() == list(range(1, 104))
        assert pages(kind="alert") == numbers(lambda n: n % 4 == 3)
        both = pages(kind=["alert", "publication"], severity=["info", "critical"])
        assert both == numbers(lambda n: n % 4 > 1 and n // 4 % 4 in (0, 3))
        assert pages(mine="true") == numbers(lambda n: n % 4 < 2 and n % 2 == 0)
        assert pages(task_id="task-5", kind="task.progress") == numbers(lambda n: n % 23 == 5 and n % 4 == 1)
        page = ada.get("/api/events", params={"since": 3, "limit": 1})
        assert page.json()["next_since"] == 4
        tag = {"If-None-Match": page.headers["etag"]}
        assert ada.get("/api/events", params={"since": 3, "limit": 1}, headers=tag).status_code == 304


@pytest.mark.requirement("R5.1")
def test_forgotten_events_are_admitted(app: FastAPI) -> None:
    engine = engine_of(app)
    append(engine, [planned(number) for number in range(1, 6)])
    later = datetime.now(UTC)
    append(engine, [planned(number) for number in range(6, 9)])
    EventLog(engine).purge(later)
    with signed_in(app, "viewer") as client:
        page = client.get("/api/events", params={"since": 2}).json()
        assert ([item["sequence"] for item in page["items"]], page["oldest"], page["gap"]) == ([6, 7, 8], 6, True)
        assert client.get("/api/events", params={"since": 5}).json()["gap"] is False


@pytest.mark.requirement("R8.2", "V8")
def test_only_kinds_that_one_may_read_are_told(sqlite_app: FastAPI) -> None:
    app, access = sqlite_app, sqlite_app.state.service.access
    append(engine_of(app), [planned(number) for number in range(1, 9)])
    for permissions, expected in (
        (["events:read"], []),
        (["events:read", "alerts:read"], [3, 7]),
        (["events:read", "tasks:read"], [1, 4, 5, 8]),
        (["events:read", "predictions:read"], [2, 6]),
    ):
        role = "-".join(permission.split(":")[0] for permission in permissions)
        access.roles.create(role, None, permissions, by="system")
        with signed_in(app, role) as client:
            page = client.get("/api/events").json()
            assert [item["sequence"] for item in page["items"]] == expected
            # asking for other kinds by name does not help
            asked = client.get("/api/events", params={"kind": ["alert", "task.state", "publication"]}).json()
            assert {item["sequence"] for item in asked["items"]} <= set(expected)
    access.roles.create("nothing", None, ["tasks:read"], by="system")
    with signed_in(app, "nothing") as client:
        assert client.get("/api/events").status_code == 403
        assert client.get("/api/events/stream").status_code == 403
        assert client.post("/api/events/ticket").status_code == 403


def test_questions_that_make_no_sense_are_refused(sqlite_app: FastAPI) -> None:
    with signed_in(sqlite_app, "viewer") as client:
        for path in ("/api/events", "/api/events/stream"):
            for query in (
                "since=-1", "since=x", f"since={2**53}", "limit=0" if path == "/api/events" else "limit=1",
                "kind=dance", "severity=bad", "task_id=", f"task_id={'x' * 37}", "mine=perhaps", "more=1",
                "since=1&since=2", "token=x",
            ):  # fmt: skip
                answer = client.get(f"{path}?{query}")
                assert answer.status_code == 422, (path, query, answer.status_code)
        for last in ("-1", "x", str(2**60)):
            assert client.get("/api/events/stream", headers={"Last-Event-ID": last}).status_code == 422
        assert client.get("/api/events?limit=1001").status_code == 422


# ------------------------------------------------------------------ Server-Sent Events
class Stream:
    """Reads a stream line by line."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer, self._lines = answer, answer.iter_lines()

    def wait_for(self, comment: str) -> None:
        """Read on until this comment comes."""
        assert any(line == comment for line in self._lines), "the stream ended"

    def next(self) -> dict[str, str]:
        """The next event."""
        found: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                found[name] = value
            elif set(found) - {"retry"}:
                return found
            else:
                found = {}
        raise AssertionError("the stream ended")

    def numbers(self, count: int) -> list[int]:
        """Numbers of the next events."""
        return [int(self.next()["id"]) for _ in range(count)]


@contextmanager
def following(address: str, token: str, query: str = "", **headers: str) -> Iterator[Stream]:
    with (
        httpx.Client(timeout=120, transport=httpx.HTTPTransport(socket_options=SMALL)) as client,
        client.stream(
            "GET",
            f"{address}/api/events/stream?{query}",
            headers={**({"Authorization": f"Bearer {token}"} if token else {}), **headers},
        ) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


@pytest.mark.requirement("R5.1", "V5")
def test_a_stream_goes_on_where_the_browser_was(app: FastAPI) -> None:
    engine = engine_of(app)
    append(engine, [planned(number, ("ada", "bob")) for number in range(1, 31)])
    with served(app) as address:
        token = log_in(address, app, "viewer", "ada")
        with following(address, token, "since=25") as stream:
            assert stream.answer.headers["content-type"].startswith("text/event-stream")
            assert stream.answer.headers["cache-control"] == "no-store"
            event = stream.next()
            assert (event["id"], event["event"]) == ("26", "publication")
            assert json.loads(event["data"])["data"] == {"number": 26}
            assert stream.numbers(4) == [27, 28, 29, 30]
            append(engine, [planned(31)])
            assert stream.numbers(1) == [31]
        with following(address, token, "since=2", **{"Last-Event-ID": "29"}) as stream:
            assert stream.numbers(2) == [30, 31]
        with following(address, token, "kind=alert&severity=info&severity=error&since=0") as stream:
            assert stream.numbers(4) == [3, 11, 19, 27]
        with following(address, token, "mine=true&since=0") as stream:
            assert stream.numbers(3) == [4, 8, 12]
        with following(address, token, "since=99") as stream:
            gap = stream.next()
            assert gap["event"] == "gap"
            assert json.loads(gap["data"]) == {"reason": "unknown", "since": 99, "next": 32}
        with following(address, token) as stream:  # from now on
            append(engine, [planned(32)])
            assert stream.numbers(1) == [32]


@pytest.mark.requirement("R5.1", "R8.1", "V8")
def test_a_stream_ends_with_a_reason_when_its_owner_may_not_listen_any_more(
    sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_sent, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(connections, "_EVERY", 0.05)
    app, access = sqlite_app, sqlite_app.state.service.access
    with served(app) as address:
        token = log_in(address, app, "viewer", "ada")
        with following(address, token) as stream:
            # the console's cookie works as well, and a token in the address does not
            cookie = access.logins.log_in("ada", PASSWORD, kind="console", origin=Origin()).cookie
            append(engine_of(app), [planned(1)])
            with following(address, "", "since=0", Cookie=f"{app.state.cookie_name}={cookie}") as console:
                assert console.numbers(1) == [1]
            assert stream.numbers(1) == [1]
            assert httpx.get(f"{address}/api/events/stream?token={token}", timeout=120).status_code in (401, 422)
            stream.wait_for(": heartbeat")
            access.accounts.disable("ada", by="system")
            end = stream.next()
            assert end["event"] == "end"
            assert json.loads(end["data"])["code"] == 4401
        add_account(app, "bob", "viewer")
        with following(address, log_in(address, app, "viewer", "bob")) as stream:
            access.roles.withdraw("bob", "viewer", by="system")
            assert json.loads(stream.next()["data"])["code"] == 4403
        wait_until(lambda: not len(app.state.live.connections))


@pytest.mark.requirement("R5.1")
def test_a_client_that_takes_nothing_of_a_stream_is_cut(sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BLOCKED_SECONDS", 0.3)
    monkeypatch.setattr(connections, "MOST_BEHIND", 50)
    monkeypatch.setattr(connections, "_EVERY", 0.1)
    app = sqlite_app
    with served(app) as address:
        token = log_in(address, app, "viewer")
        with following(address, token, "since=0"):
            for start in range(1, 601, 100):
                append(engine_of(app), [planned(number, size=20_000) for number in range(start, start + 100)])
            wait_until(lambda: not len(app.state.live.connections))
        assert httpx.get(f"{address}/healthz", timeout=120).status_code == 200
