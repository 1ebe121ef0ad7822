"""What a service leaves behind when it stops, and what it says of work in the background that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, make_url, text

from stock_pipeline.access import versions
from stock_pipeline.api.app import create_app
from stock_pipeline.api.streams.hub import EventHub
from stock_pipeline.observability.logging import configure_logging
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.tasks import EventLog
from stock_pipeline_tests.api_service import app_for, service_for, signed_in
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.services import redis
from stock_pipeline_tests.waiting import wait_until


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = configure_logging(tmp_path / "logged", component="api", console=False)
    assert path
    yield path
    configure_logging(None, console=False)


def tracebacks(log: Path, event: str) -> list[str]:
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]  # the last may be half written
    return [line["exception"] for line in lines if line["event"] == event and "exception" in line]


@pytest.mark.requirement("A5")
def test_a_service_that_stops_leaves_no_connection_open(
    tmp_path: Path, postgres_address: str, postgres_server: str
) -> None:
    with redis() as shared:
        service = service_for(Lake(tmp_path), storage={"metadata": postgres_address}, access={"redis": shared})
        app = create_app(service)
        with signed_in(app, "operator") as client:
            assert client.get("/api/tasks").status_code == 200
            service.waker.wake()
            runs = service.runs
    administrator = create_engine(postgres_server)
    open_ones = text("SELECT query FROM pg_stat_activity WHERE datname = :name")

    def left() -> list[str]:
        with administrator.connect() as connection:
            return list(connection.scalars(open_ones, {"name": make_url(postgres_address).database}))

    wait_until(lambda: not left(), left)  # the server needs a moment to see that they are gone
    administrator.dispose()
    with pytest.raises(RuntimeError, match="closed"):
        runs.launch("job", {}, {})
    assert service.runs is not runs
    with TestClient(app, headers=client.headers) as again:
        assert again.get("/api/tasks").status_code == 200


def lost(*_: object, **__: object) -> None:
    raise KeyError("x")


def logged(log: Path, event: str) -> str:
    """Traceback of the first line of an event, once there is one."""
    wait_until(lambda: tracebacks(log, event), lambda: f"no {event!r}")
    return tracebacks(log, event)[0]


@pytest.mark.requirement("R1.5")
def test_what_fails_in_the_background_is_logged_with_its_traceback(
    tmp_path: Path, sqlite_address: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_for(Lake(tmp_path / "lake"), sections={"storage": {"metadata": sqlite_address}}, poll_seconds=0.01)
    first = [None]
    monkeypatch.setattr(app.state.service.publications, "refresh", lambda: first.pop() if first else lost())
    with signed_in(app, "viewer"):
        monkeypatch.setattr(versions, "current", lost)
        found = [logged(log, "work in the background failed"), logged(log, "the gate cannot look for changes")]
        monkeypatch.undo()
    assert all("KeyError: 'x'" in text and "in lost" in text for text in found)


@pytest.mark.requirement("R1.5")
def test_a_reader_of_events_that_fails_is_logged_with_its_traceback(
    sqlite_database: Engine, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = EventLog(sqlite_database)

    async def follow() -> None:
        hub = EventHub(events, poll_seconds=0.01)
        await hub.start()
        monkeypatch.setattr(events, "after", lost)
        await asyncio.to_thread(logged, log, "events could not be read")
        await hub.stop()

    run_apart(follow())
    (text,) = tracebacks(log, "events could not be read")
    assert "KeyError: 'x'" in text
    assert "in lost" in text
