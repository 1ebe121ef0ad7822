"""The metadata database stops to answer without going away, or has no connection left, while the service runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stock_pipeline.access import gate
from stock_pipeline.api.app import create_app
from stock_pipeline.storage.database import migrate, open_database
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for, problem, service_for, signed_in
from stock_pipeline_tests.databases import cut_off
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.services import postgres
from stock_pipeline_tests.serving import log_in, served
from stock_pipeline_tests.waiting import wait_until

PAGE = {"Accept": "text/html"}
HANGS = gate._HANGS
"""What the product has, before tests are made patient."""


@contextmanager
def stopped(address: str) -> Iterator[Callable[[], None]]:
    """Gives what lets all processes of a Postgres server stand still; they go on at the end."""
    engine = create_engine(address)
    with engine.connect() as connection:
        folder = Path(connection.scalar(text("SELECT setting FROM pg_settings WHERE name = 'data_directory'")) or "")
    engine.dispose()
    server = psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))
    held: list[psutil.Process] = []

    def stop() -> None:
        server.suspend()  # first: from now on it starts no other
        held.append(server)
        for process in server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # the one of a connection that has just been closed
                process.suspend()
                held.append(process)

    try:
        yield stop
    finally:
        for process in held:
            with suppress(psutil.NoSuchProcess):  # it was about to end when it was held
                process.resume()


@pytest.mark.slow
@pytest.mark.requirement("A5")
def test_a_database_that_stands_still_does_not_hold_up_what_needs_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_HANGS", HANGS)
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0])
    with postgres() as address, ExitStack() as stack:
        waits = make_url(address).update_query_dict({"connect_timeout": "600"})  # no limit of the connection ends it
        service = service_for(lake, storage={"metadata": waits.render_as_string(hide_password=False)})
        app = create_app(service)
        stack.callback(service.database.dispose)
        base = stack.enter_context(served(app))
        token = log_in(base, app, "viewer")
        client = stack.enter_context(
            httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=120)
        )
        answers, late = [client.get("/api/predictions")], []

        def answered(status: int) -> bool:
            answers.append(client.get("/api/predictions"))
            return answers[-1].status_code == status

        def refused() -> bool:
            try:
                answers.append(client.get("/api/predictions", timeout=30))
            except httpx.ReadTimeout as error:  # it looked for itself, because the thread that looks was late
                late.append(error)
                assert len(late) == 1, "whoever comes while another one waits for the database is refused"
                return False
            return answers[-1].status_code == 503

        wait_until(lambda: answered(200), lambda: answers[-1].text)
        with stopped(address) as stop:
            stop()
            wait_until(refused, lambda: answers[-1].text)  # for two seconds it is let in
            problem(answers[-1], 503, "database-unavailable")
            assert int(answers[-1].headers["Retry-After"]) > 0
            for _ in range(60):  # more than there are threads: none of them waits
                assert client.get("/api/tasks").status_code == 503
            assert client.get("/healthz").status_code == 200
        wait_until(lambda: answered(200), lambda: answers[-1].text)


@pytest.mark.requirement("A5")
def test_a_database_that_is_away_is_a_503_on_every_way_and_a_page_for_browsers(
    tmp_path: Path, postgres_address: str, postgres_server: str
) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0])
    app = app_for(lake, sections={"storage": {"metadata": postgres_address}})
    viewer = signed_in(app, "viewer", raise_server_exceptions=False)
    app.state.publications.refresh()
    assert viewer.get("/api/predictions").status_code == 200
    with cut_off(postgres_server, postgres_address):
        for path in ("/api/predictions", "/api/predictions?symbol=nobody", "/api/tasks"):
            problem(viewer.get(path), 503, "database-unavailable")
        page = viewer.get("/quality", headers=PAGE)
        assert page.status_code == 503
        assert page.headers["content-type"].startswith("text/html")
        assert "database is busy or cannot be reached" in page.text
        assert int(page.headers["Retry-After"]) > 0
    assert viewer.get("/api/predictions").status_code == 200


@pytest.fixture
def viewer(tmp_path: Path, sqlite_address: str) -> Iterator[TestClient]:
    app = app_for(Lake(tmp_path), sections={"storage": {"metadata": sqlite_address}})
    yield signed_in(app, "viewer", raise_server_exceptions=False)
    app.state.service.database.dispose()


@pytest.mark.requirement("A5")
@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, Exception("gone")),
        InterfaceError("SELECT", {}, Exception("connection already closed")),
        PoolTimeout("no connection left"),
    ],
)
def test_whatever_keeps_the_database_from_answering_is_the_same_problem(viewer: TestClient, error: Exception) -> None:
    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM task" in statement:
            raise error

    engine = viewer.app.state.service.database  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", fail)
    answer = viewer.get("/api/tasks")
    problem(answer, 503, "database-unavailable")
    page = viewer.get("/tasks", headers=PAGE)
    assert page.status_code == 503
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.requirement("A5")
def test_every_thread_of_the_service_can_have_a_connection(sqlite_address: str) -> None:
    engine = open_database(sqlite_address, migrate=False)
    with ExitStack() as stack:
        for _ in range(48):  # 40 threads for requests, and those in the background
            connection = stack.enter_context(engine.execution_options(reads=True).connect())
            assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.requirement("A5")
def test_statements_end_unless_the_address_says_otherwise(postgres_address: str) -> None:
    engine = open_database(postgres_address, migrate=False)
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "1min"
        assert connection.scalar(text("SHOW server_version_num"))
    engine.dispose()
    own = make_url(postgres_address).update_query_dict({"options": "-c statement_timeout=3s"})
    impatient = open_database(own.render_as_string(hide_password=False), migrate=False)
    with impatient.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(50)"))
    impatient.dispose()


@pytest.mark.requirement("A5")
def test_migrations_wait_for_each_other_longer_than_a_statement_may_last(postgres_address: str) -> None:
    """The one that waits has a timeout of three seconds; it is let go only when it has waited longer."""
    own = make_url(postgres_address).update_query_dict({"options": "-c statement_timeout=3s"})
    holder = create_engine(postgres_address, isolation_level="AUTOCOMMIT")
    opened: list[object] = []
    waiting = threading.Thread(target=lambda: opened.append(open_database(own.render_as_string(hide_password=False))))
    number = {"number": migrate._POSTGRES_LOCK}
    waited = text(
        "SELECT extract(epoch FROM clock_timestamp() - query_start) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with holder.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), number)
        waiting.start()
        try:
            wait_until(lambda: not waiting.is_alive() or (connection.scalar(waited) or 0) >= 4)
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:number)"), number)
            waiting.join()
    holder.dispose()
    assert len(opened) == 1
    opened[0].dispose()  # type: ignore[attr-defined]
