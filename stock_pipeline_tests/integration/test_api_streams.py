"""The stream over the WebSocket: nothing lost, repeated or out of order; who may listen; what ends a connection."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from stock_pipeline.api import patience, server
from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.api.streams import connections, socket
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.tasks import EventLog
from stock_pipeline.storage.tasks.wake import Waker
from stock_pipeline_tests.accounts import tampered
from stock_pipeline_tests.api_service import PASSWORD, add_account, service_for, settings_for
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.services import redis
from stock_pipeline_tests.serving import ServedProcess, log_in, log_in_to, served, served_process
from stock_pipeline_tests.streaming import append, deaf, ending, entered, hear, hear_any, planned, say, socket_address
from stock_pipeline_tests.waiting import soon, wait_until


@pytest.fixture(autouse=True)
def patient_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bear clients that stand still: they share this busy machine, and a loop, with the service.

    Tests of how little is borne say so themselves.
    """
    monkeypatch.setattr(server, "PING_SECONDS", 600.0)


@pytest.fixture
def app(tmp_path: Path, database_address: str) -> Iterator[FastAPI]:
    service = service_for(Lake(tmp_path / "lake"), storage={"metadata": database_address})
    yield create_app(service)
    service.database.dispose()


@pytest.fixture
def sqlite_app(tmp_path: Path, sqlite_address: str) -> Iterator[FastAPI]:
    service = service_for(
        Lake(tmp_path / "lake"), storage={"metadata": sqlite_address}, access={"limits": {"streams": 4}}
    )
    yield create_app(service)
    service.database.dispose()


def engine_of(app: FastAPI) -> Engine:
    engine: Engine = app.state.service.database
    return engine


# ------------------------------------------------------------------ exactly once, in order
@dataclass
class Client:
    """A client that drops its connection now and then and goes on from the last event that it has."""

    token: str
    subscription: dict[str, Any]
    expected: list[int]
    seed: int
    got: list[int] = field(default_factory=list)
    connections: int = 0

    async def follow(self, served: ServedProcess) -> None:
        chance = random.Random(self.seed)
        drops = [len(self.expected) * part // 100 for part in sorted(chance.sample(range(5, 95), 3))]
        failures = 0
        while len(self.got) < len(self.expected):
            before = len(self.got)
            try:
                await self._connected(served, drops)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                # as a client waits before it tries again, longer where all of them want in at once
                failures = failures + 1 if len(self.got) == before else 0
                await asyncio.sleep(chance.uniform(0.02, 0.2) * 2 ** min(failures, 6))

    async def _connected(self, served: ServedProcess, drops: list[int]) -> None:
        self.connections += 1
        async with connect(socket_address(served.address), open_timeout=120, compression=None) as websocket:
            await say(websocket, type="authenticate", token=self.token)
            assert (await hear(websocket))["type"] == "authenticated"
            await say(websocket, type="subscribe", since=self.got[-1] if self.got else 0, **self.subscription)
            while len(self.got) < len(self.expected):
                message = json.loads(await asyncio.wait_for(websocket.recv(), 120))
                if message["type"] == "event":
                    self.got.append(message["sequence"])
                    if drops and len(self.got) >= drops[0]:
                        drops.pop(0)
                        websocket.transport.abort()
                        return
                else:
                    assert message["type"] in ("subscribed", "resumed", "heartbeat"), message


@pytest.mark.slow
@pytest.mark.requirement("R5.1", "V5")
def test_two_hundred_clients_that_drop_see_every_event_once_and_in_order(tmp_path: Path, database_address: str) -> None:
    total, names = 3000, [f"reader-{number}" for number in range(20)]
    settings = settings_for(
        tmp_path / "lake", tmp_path / "home", storage={"metadata": database_address, "lake": str(tmp_path / "lake")}
    )
    service = Service(settings)
    engine, access = service.database, service.access
    tokens = {}
    for name in names:
        access.accounts.create(name, password=PASSWORD, roles=("viewer",), by="system")
    events = [planned(number, names) for number in range(1, total + 1)]

    def numbers(wanted: Callable[[Any], bool]) -> list[int]:
        return [number for number, event in enumerate(events, 1) if wanted(event)]

    with served_process(settings.config_file) as serving:
        for name in names:
            tokens[name] = log_in_to(serving.address, name)
        clients = []
        for number in range(200):
            name = names[number % len(names)]
            match number // 20 % 5:
                case 0 if number < 20:
                    subscription, expected = {}, numbers(lambda event: True)
                case 0 | 1:
                    task = f"task-{number % 23}"
                    subscription, expected = {"tasks": [task]}, numbers(lambda event, t=task: event.task_id == t)
                case 2:
                    subscription = {"kinds": ["alert"], "severities": ["error", "critical"]}
                    expected = numbers(lambda e: e.kind == "alert" and e.severity in ("error", "critical"))
                case 3:
                    subscription, expected = {"mine": True}, numbers(lambda event, n=name: event.owner == n)
                case _:
                    subscription, expected = {"kinds": ["publication"]}, numbers(lambda e: e.kind == "publication")
            clients.append(Client(tokens[name], subscription, expected, number))

        def write() -> None:
            chance, position = random.Random(5), 0
            while position < total:
                size = chance.randint(1, 25)
                append(engine, events[position : position + size])
                position += size
                time.sleep(0.01)  # readers of a log that grows, not of one that is complete

        def restart() -> None:
            wait_until(lambda: EventLog(engine).newest() >= total // 2, EventLog(engine).newest, 1200)
            serving.kill()
            serving.start()

        threads = [threading.Thread(target=work, daemon=True) for work in (write, restart)]

        async def everybody() -> None:
            await asyncio.gather(*(client.follow(serving) for client in clients))

        for thread in threads:
            thread.start()
        run_apart(asyncio.wait_for(everybody(), 1500))
        for thread in threads:
            thread.join()
    assert all(client.got == client.expected for client in clients)
    assert sum(client.connections for client in clients) > 600
    engine.dispose()


@pytest.mark.requirement("R5.1")
def test_a_client_that_was_away_is_told_what_comes_again_and_what_is_gone(app: FastAPI) -> None:
    engine = engine_of(app)
    append(engine, [planned(number) for number in range(1, 11)])
    later = datetime.now(UTC)
    append(engine, [planned(number) for number in range(11, 21)])
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            websocket = await entered(address, token, since=15)
            assert await hear(websocket) == {"type": "resumed", "from": 16, "to": 20}
            assert [(await hear(websocket))["sequence"] for _ in range(5)] == [16, 17, 18, 19, 20]
            # what was forgotten is said, and the stream goes on with what is there
            EventLog(engine).purge(later)
            oldest = EventLog(engine).oldest()
            app.state.live.hub._kept.clear()
            await say(websocket, type="subscribe", since=3)
            assert [(await hear(websocket))["type"] for _ in range(2)] == ["subscribed", "resumed"]
            assert await hear(websocket) == {"type": "gap", "reason": "expired", "since": 3, "next": oldest}
            assert (await hear(websocket))["sequence"] == oldest
            # a number that this log never had
            await say(websocket, type="subscribe", since=1000, kinds=["alert"])
            found = await hear(websocket)
            while found["type"] != "gap":
                found = await hear(websocket)
            assert found == {"type": "gap", "reason": "unknown", "since": 1000, "next": 21}
            append(engine, [planned(23)])
            assert (await hear(websocket))["sequence"] == 21

        run_apart(talk())


@pytest.mark.requirement("R5.1")
def test_a_subscription_is_changed_without_loss_or_repetition(app: FastAPI) -> None:
    engine = engine_of(app)
    with served(app) as address:
        token = log_in(address, app, "viewer", "ada")

        async def talk() -> None:
            websocket = await entered(address, token, kinds=["alert"])
            append(engine, [planned(number, ("ada", "bob")) for number in range(1, 41)])
            seen = [await hear(websocket) for _ in range(10)]
            assert [message["sequence"] for message in seen] == [n for n in range(1, 41) if n % 4 == 3]
            assert set(seen[0]) == {
                "type", "sequence", "kind", "severity", "task_id", "task_kind", "run_id", "owner", "state", "at",
                "recorded_at", "data",
            }  # fmt: skip
            await say(websocket, type="subscribe", mine=True)
            assert (await hear(websocket)) == {"type": "subscribed", "newest": 40}
            append(engine, [planned(number, ("ada", "bob")) for number in range(41, 61)])
            mine = [await hear(websocket) for _ in range(5)]
            assert [m["sequence"] for m in mine] == [n for n in range(41, 61) if n % 2 == 0 and n % 4 in (0, 1)]
            assert {message["owner"] for message in mine} == {"ada"}
            await say(websocket, type="subscribe", since=0, tasks=["task-5"], severities=["info", "warning"])
            assert [(await hear(websocket))["type"] for _ in range(2)] == ["subscribed", "resumed"]
            assert (await hear(websocket))["sequence"] == 5
            await say(websocket, type="ping")
            assert await hear(websocket) == {"type": "pong", "newest": 60}

        run_apart(talk())


# ------------------------------------------------------------------ who may listen
def refused(address: str, *messages: str | bytes, path: str = "", **options: Any) -> tuple[int, str]:
    """How a connection ends that says this."""

    async def talk() -> tuple[int, str]:
        websocket = await connect(socket_address(address) + path, open_timeout=120, **options)
        try:
            for message in messages:
                await websocket.send(message)
        except ConnectionClosed:
            pass
        return await ending(websocket)

    return run_apart(talk())


@pytest.mark.requirement("R5.1", "R8.1", "V8")
def test_only_who_may_follow_the_stream_gets_in(sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    app, access = sqlite_app, sqlite_app.state.service.access
    with served(app) as address:
        token = log_in(address, app, "viewer")
        good = json.dumps({"type": "authenticate", "token": token})
        nobody = log_in(address, app, None, "nobody")  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "LOGIN_SECONDS", 0.1)
            assert refused(address)[0] == 4401  # said nothing in time
        assert refused(address, json.dumps({"type": "subscribe"}))[0] == 4401
        assert refused(address, json.dumps({"type": "authenticate"}))[0] == 4401
        assert refused(address, json.dumps({"type": "authenticate", "token": tampered(token)}))[0] == 4401
        assert refused(address, json.dumps({"type": "authenticate", "ticket": "spt_" + "x" * 43}))[0] == 4401
        assert refused(address, json.dumps({"type": "authenticate", "token": token, "ticket": "x"}))[0] == 4401
        assert refused(address, json.dumps({"type": "authenticate", "token": nobody}))[0] == 4403
        assert refused(address, good, path=f"?token={token}")[0] == 4400
        assert refused(address, good, origin="https://elsewhere.example")[0] == 4403
        assert refused(address, good, origin="null")[0] == 4403
        # an API key whose scopes do not hold the stream
        _, secret = access.keys.create("the-viewer", "narrow", ["predictions:read"], None)
        assert refused(address, json.dumps({"type": "authenticate", "token": secret}))[0] == 4403

        async def welcome() -> None:
            headers = {"Authorization": f"Bearer {token}"}
            ticket = httpx.post(f"{address}/api/events/ticket", headers=headers, timeout=120).json()["ticket"]
            websocket = await connect(socket_address(address), origin=address, open_timeout=120)  # type: ignore[arg-type]
            await say(websocket, type="authenticate", ticket=ticket)
            assert (await hear(websocket))["account"] == "the-viewer"
            again = await connect(socket_address(address), open_timeout=120)
            await say(again, type="authenticate", ticket=ticket)
            assert (await ending(again))[0] == 4401  # a ticket works once

        run_apart(welcome())


@pytest.mark.requirement("R8.2", "R8.3", "V8")
def test_rights_that_are_withdrawn_end_the_connection(sqlite_app: FastAPI) -> None:
    app, access = sqlite_app, sqlite_app.state.service.access
    with served(app) as address:
        token = log_in(address, app, "viewer", "ada")

        async def talk() -> None:
            # of a kind that one may not read nothing is told, from the moment on that it is so
            access.roles.create("listener", None, ["events:read", "alerts:read"], by="system")
            add_account(app, "bob", "listener")
            bob = await entered(address, log_in(address, app, "listener", "bob"), since=0)
            append(engine_of(app), [planned(number) for number in range(1, 9)])
            assert [(await hear(bob))["sequence"] for _ in range(2)] == [3, 7]
            access.roles.change("listener", permissions=["events:read", "predictions:read"], by="system")
            append(engine_of(app), [planned(number) for number in range(9, 17)])
            assert [(await hear(bob))["sequence"] for _ in range(2)] == [10, 14]
            access.roles.change("listener", permissions=["predictions:read"], by="system")
            assert await ending(bob) == (4403, "the permission events:read was withdrawn")
            # a session that ends
            ada = await entered(address, token, since=16)
            headers = {"Authorization": f"Bearer {token}"}
            httpx.post(f"{address}/api/auth/logout", headers=headers, timeout=120).raise_for_status()
            code, reason = await ending(ada)
            assert (code, reason) == (4401, "the log-in is over: session-revoked")

        run_apart(talk())


# ------------------------------------------------------------------ clients that behave badly
@pytest.mark.requirement("R5.1")
def test_messages_that_are_no_messages_end_the_connection(sqlite_app: FastAPI) -> None:
    app = sqlite_app
    with served(app) as address:
        good = json.dumps({"type": "authenticate", "token": log_in(address, app, "viewer")})
        for bad in (
            "", "null", "[]", "{", '{"type": "dance"}', '{"type": "ping", "extra": 1}', good,
            '{"type": "subscribe", "since": -1}', '{"type": "subscribe", "since": 1e400}',
            '{"type": "subscribe", "kinds": ["dance"]}', '{"type": "subscribe", "tasks": [1]}',
            '{"type": "subscribe", "since": 99999999999999999999}', "[" * 10_000, "\x00",
            json.dumps({"type": "subscribe", "tasks": ["x" * 30] * 1001}), "x" * 20_000, b"\x00\xff",
        ):  # fmt: skip
            code, reason = refused(address, good, bad)
            assert code == 4400, (bad[:50], code, reason)
        assert refused(address, good, "x" * 100_000)[0] == 1009  # not even read
        assert refused(address, good, *['{"type": "ping"}'] * 100)[0] == 4400
        assert httpx.get(f"{address}/healthz", timeout=120).status_code == 200


@pytest.mark.requirement("R5.1")
def test_an_account_has_only_so_many_connections(sqlite_app: FastAPI) -> None:
    app = sqlite_app
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            opened = [await entered(address, token) for _ in range(4)]
            more = await connect(socket_address(address), open_timeout=120)
            await say(more, type="authenticate", token=token)
            code, reason = await ending(more)
            assert (code, reason) == (4429, "the-viewer has 4 connections already; end one of them")
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx.get(f"{address}/api/events/stream", headers=headers, timeout=120)
            assert answer.status_code == 429
            assert answer.json()["type"].endswith("too-many-streams")
            assert answer.headers["retry-after"] == "30"
            other = await entered(address, log_in(address, app, "analyst"))
            await other.close()
            await opened.pop().close()
            await soon(lambda: len(app.state.live.connections) <= 3)
            await (await entered(address, token)).close()

        run_apart(talk())


@pytest.mark.requirement("R5.1")
def test_a_client_that_takes_nothing_is_cut_and_costs_no_memory(
    sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BLOCKED_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MOST_BEHIND", 300)
    monkeypatch.setattr(connections, "_EVERY", 0.2)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 600.0)  # the close is what is looked at here
    app = sqlite_app
    process = psutil.Process()
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            slow = await deaf(address, token)
            good = await entered(address, token, since=0)
            before = process.memory_info().rss
            received = 0
            for start in range(1, 1501, 100):
                events = [planned(number, size=10_000) for number in range(start, start + 100)]
                await asyncio.to_thread(append, engine_of(app), events)
                while received < start + 99:
                    received = (await hear(good))["sequence"]
            await soon(lambda: len(app.state.live.connections) == 1)
            kept, size = app.state.live.hub.kept
            assert size <= 8_000_000
            assert kept <= 5_000
            assert process.memory_info().rss - before < 80_000_000  # 15 MB were written, and kept at most 8
            code, reason = await ending(slow)
            assert code == 4408, reason
            assert reason.startswith("too slow")

        run_apart(talk())


@pytest.mark.requirement("R5.1")
def test_heartbeats_are_sent(sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "HEARTBEAT_SECONDS", 0.1)
    app = sqlite_app
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            websocket = await entered(address, token)
            assert await hear_any(websocket) == {"type": "heartbeat", "newest": 0}

        run_apart(talk())


@pytest.mark.requirement("R5.1")
def test_dead_peers_are_dropped(sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PING_SECONDS", 1.0)
    app, ended, serve = sqlite_app, [], socket.SocketSession.serve

    async def noted(session: socket.SocketSession) -> None:
        try:
            await serve(session)
        finally:
            ended.append(session)

    monkeypatch.setattr(socket.SocketSession, "serve", noted)
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            # without pings of its own, whose answers it would not take either: the service alone can end it
            websocket = await connect(socket_address(address), proxy=None, open_timeout=120, ping_interval=None)
            websocket.transport.pause_reading()  # it is as good as dead: it answers no ping
            with suppress(ConnectionClosed):  # a machine that stands still here: it was dropped before its first word
                await say(websocket, type="authenticate", token=token)
            await soon(lambda: len(ended) == 1)
            await soon(lambda: not len(app.state.live.connections))
            websocket.transport.abort()

        run_apart(talk())


def test_a_client_that_keeps_taking_nothing_loses_its_connection(
    sqlite_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing but the transport could end it: the client reads neither data nor the close frame."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    app = sqlite_app
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> None:
            slow = await deaf(address, token)
            port = slow.transport.get_extra_info("sockname")[1]
            await asyncio.to_thread(append, engine_of(app), [planned(n, size=50_000) for n in range(1, 301)])

            def held() -> list[Any]:
                found = psutil.Process().net_connections("tcp")
                return [one for one in found if one.raddr and one.raddr.port == port and one.status == "ESTABLISHED"]

            await soon(lambda: not held(), held)
            slow.transport.abort()

        run_apart(talk())
        wait_until(lambda: not len(app.state.live.connections))


def test_a_stop_of_the_service_does_not_wait_for_those_who_listen(sqlite_app: FastAPI) -> None:
    app = sqlite_app
    with served(app) as address:
        token = log_in(address, app, "viewer")

        async def talk() -> Any:
            return await entered(address, token)

        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        websocket = asyncio.run_coroutine_threadsafe(talk(), loop).result(180)
        stream = httpx.Client(timeout=120)
        answer = stream.send(
            stream.build_request("GET", f"{address}/api/events/stream", headers={"Authorization": f"Bearer {token}"}),
            stream=True,
        )
        assert answer.status_code == 200
    # `served` has waited for the end of the server
    assert asyncio.run_coroutine_threadsafe(ending(websocket), loop).result(180)[0] in (1012, 1006, 1001)
    answer.close()
    stream.close()
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.requirement("R5.1")
def test_readers_are_woken_through_redis_and_do_without_it(tmp_path: Path, sqlite_address: str) -> None:
    with redis() as broker:
        service = service_for(Lake(tmp_path / "lake"), storage={"metadata": sqlite_address}, access={"redis": broker})
        app = create_app(service)
        with served(app) as address:
            token = log_in(address, app, "viewer")
            live = app.state.live

            async def talk() -> None:
                websocket = await entered(address, token, since=0)
                await soon(lambda: live.hub.poll_seconds >= 1)  # it has heard of Redis
                live.hub.poll_seconds = 3600.0

                def woken(number: int) -> bool:
                    Waker(broker).wake()  # each time: a word may be lost, and the reader be in its last short pause
                    return live.hub.newest >= number

                for number in (1, 2):
                    append(engine_of(app), [planned(number)])
                    await soon(partial(woken, number))
                    assert (await hear(websocket))["sequence"] == number
                return websocket

            run_apart(talk())
    # Redis is gone: looking is enough
    service.database.dispose()
