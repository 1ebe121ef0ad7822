"""The service around the routes: health, pages, errors, headers, a real server, publications that change while read."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from stock_pipeline.api.schemas import Readiness
from stock_pipeline.api.server import is_loopback, serve
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED, PublicationCache
from stock_pipeline_tests.api_service import PASSWORD, app_for, service_for, signed_in
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.services import free_port
from stock_pipeline_tests.waiting import wait_until

TYPE = "application/problem+json"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    publish(made, SESSIONS[0])
    return made


@pytest.mark.requirement("A1")
def test_without_a_publication_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with signed_in(app_for(lake, poll_seconds=0.02)) as client:
        assert client.get("/healthz").json()["status"] == "ok"
        for path in ("/readyz", "/api/predictions", "/api/predictions/x", "/api/unpredicted"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.headers["content-type"] == TYPE
            assert "nothing has been published" in response.json()["detail"]
        assert "Nothing has been published yet" in client.get("/").text
        publish(lake, SESSIONS[0])
        wait_until(lambda: client.get("/readyz").status_code == 200)
        ready = Readiness.model_validate(client.get("/readyz").json())
        assert ready.publication.session == SESSIONS[0]
        assert ready.age_seconds > 0


@pytest.mark.requirement("A1", "R1.2")
def test_an_unreadable_lake_is_reported_and_the_last_good_publication_stays(lake: Lake) -> None:
    with signed_in(app_for(lake, poll_seconds=0.02)) as client:
        assert client.get("/readyz").status_code == 200
        for file in Path(lake.uri(PUBLISHED), "_delta_log").glob("*.json"):
            file.write_text("{ this is not a commit")
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert "cannot be read" in client.get("/readyz").json()["detail"]
        assert client.get("/api/predictions").json()["total"] == 25
        shutil.rmtree(lake.root)
        wait_until(lambda: "nothing has been published" in client.get("/readyz").json()["detail"])
        assert client.get("/api/predictions").json()["total"] == 25


@pytest.mark.requirement("A1")
def test_a_publication_with_a_damaged_file_is_not_taken(lake: Lake) -> None:
    cache = PublicationCache(lake)
    assert cache.refresh()
    before = set(Path(lake.uri(PUBLISHED)).rglob("*.parquet"))
    publish(lake, SESSIONS[1])
    for file in set(Path(lake.uri(PUBLISHED)).rglob("*.parquet")) - before:
        file.write_bytes(b"PAR1 but damaged PAR1")
    assert not cache.refresh()
    assert cache.problem is not None
    assert cache.current is not None
    assert cache.current.session == SESSIONS[0]


@pytest.mark.requirement("A1")
def test_every_error_is_a_problem_document(lake: Lake) -> None:
    app = app_for(lake, poll_seconds=60)

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("password=hunter2")

    with signed_in(app, raise_server_exceptions=False) as client:
        answers = {
            404: client.get("/nothing"),
            405: client.put("/api/predictions"),
            422: client.get("/api/predictions?limit=x"),
            500: client.get("/fails"),
        }
        for status, response in answers.items():
            assert response.status_code == status
            assert response.headers["content-type"] == TYPE
            body = response.json()
            assert set(body) >= {"type", "title", "status", "detail", "instance", "request_id"}
            assert body["request_id"] == response.headers["x-request-id"]
        assert set(answers[405].headers["allow"].split(", ")) >= {"GET"}
        assert "hunter2" not in answers[500].text


@pytest.mark.requirement("A1")
def test_headers_of_every_answer(lake: Lake) -> None:
    with signed_in(app_for(lake, poll_seconds=60)) as client:
        for path in ("/", "/docs", "/api/predictions", "/nothing", "/static/icon.svg"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert client.get("/healthz", headers={"X-Request-ID": "abcd-1234"}).headers["x-request-id"] == "abcd-1234"
        made = client.get("/healthz", headers={"X-Request-ID": "<script>"}).headers["x-request-id"]
        assert len(made) == 32


@pytest.mark.requirement("A1")
def test_foreign_host_names_are_refused(lake: Lake) -> None:
    app = app_for(lake, poll_seconds=60, allowed_hosts=("localhost", "127.0.0.1", "::1"))
    with TestClient(app) as client:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 200
        refused = client.get("/healthz", headers={"Host": "evil.example:8000"})
        assert refused.status_code == 400
        assert refused.json()["type"].endswith("unknown-host")


@pytest.mark.requirement("A1", "R8.2")
def test_an_answer_that_is_ready_is_not_given_without_asking(lake: Lake) -> None:
    app = app_for(lake, poll_seconds=60)
    with signed_in(app, "viewer") as viewer, TestClient(app) as nobody, signed_in(app, None, "guest") as guest:
        paths = ("/api/predictions", "/api/predictions/2023-06-28.S000.5", "/api/unpredicted")
        for _ in range(2):  # the second time the answers are ready
            for path in paths:
                assert viewer.get(path).status_code == 200
                refused = nobody.get(path)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"].startswith("Bearer")
                assert "expected_return" not in refused.text
                assert guest.get(path).status_code == 403
        assert nobody.get("/healthz").status_code == 200


@pytest.mark.requirement("A1")
def test_pages_load_nothing_from_elsewhere(lake: Lake) -> None:
    with signed_in(app_for(lake, poll_seconds=60)) as client:
        page = client.get("/")
        assert "S000" in page.text
        docs = client.get("/docs")
        for text in (page.text, docs.text):
            for part in text.split('"'):
                assert not part.startswith(("http:", "https:", "//")), part
        files = re.findall(r'(?:src|href)="(/(?:static|reference)/[^"]+)"', page.text + docs.text)
        assert len(files) > 4
        for file in files:
            assert client.get(html.unescape(file)).status_code == 200, file
        assert "/reference/swagger-ui-bundle.js" in docs.text


@pytest.mark.requirement("A1")
def test_text_from_the_table_cannot_become_markup(tmp_path: Path) -> None:
    import polars as pl

    from stock_pipeline_tests.published import predictions

    lake = Lake(tmp_path)
    frame = predictions(SESSIONS[0], 1).with_columns(symbol=pl.lit("<script>alert(1)</script>"))
    lake.write_sessions(PUBLISHED, frame, start=SESSIONS[0], end=SESSIONS[0])
    with signed_in(app_for(lake, poll_seconds=60)) as client:
        assert "<script>" not in client.get("/").text


@pytest.mark.requirement("A1", "R1.2")
def test_readers_never_see_two_publications_mixed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0], 200, shift=0.0)
    cache = PublicationCache(lake)
    cache.refresh()
    stop, seen, wrong = threading.Event(), set(), []
    with signed_in(app_for(lake, cache=cache, poll_seconds=0.005)) as client:

        def read(limit: int) -> None:
            mine = TestClient(client.app, headers=client.headers)
            while not stop.is_set():
                body = mine.get("/api/predictions", params={"limit": limit}).json()
                shifts = {
                    round(row["expected_return"] - 0.05 + (row["rank"] - 1) / 1000) for row in body["predictions"]
                }
                if len(shifts) != 1 or shifts != {body["publication"]["version"]}:
                    wrong.append((body["publication"], shifts))
                seen.update(shifts)

        readers = [threading.Thread(target=read, args=(limit,)) for limit in (200, 150, 100)]
        for reader in readers:
            reader.start()
        try:
            for version in range(1, 13):
                assert publish(lake, SESSIONS[0], 200, shift=float(version)) == version
                if version % 3 == 0:  # some are seen by somebody, some may be replaced before
                    wait_until(lambda wanted=version: wanted in seen)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert not wrong


@pytest.mark.requirement("A1", "P5")
def test_a_real_server_serves_and_stops(lake: Lake, tmp_path: Path) -> None:
    port = free_port()
    code = (
        "import sys; from pathlib import Path; from stock_pipeline.api.server import serve; "
        "from stock_pipeline_tests.api_service import PASSWORD, service_for; "
        "from stock_pipeline.storage.lake import Lake; service = service_for(Lake(sys.argv[1])); "
        "service.access.accounts.create('ana', password=PASSWORD, by='system'); "
        "serve(service, port=int(sys.argv[2]), home=sys.argv[3])"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, lake.root, str(port), str(tmp_path)],
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            wait_until(lambda: _answers(client) or server.poll() is not None)
            assert server.poll() is None, "the server ended by itself"
            tokens = client.post("/api/auth/login", json={"name": "ana", "password": PASSWORD}).json()
            client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            first = client.get("/api/predictions")
            assert first.json()["publication"]["session"] == str(SESSIONS[0])
            assert first.headers.get("server") is None
            publish(lake, SESSIONS[1])
            wait_until(lambda: client.get("/api/predictions").json()["publication"]["session"] == str(SESSIONS[1]))
            assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
            head = client.head("/api/predictions")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["etag"] == client.get("/api/predictions").headers["etag"]
            with pytest.raises(ConfigurationError, match="cannot listen there"):
                serve(service_for(lake), port=port)
            assert client.get("/readyz", headers={"X-Request-ID": "find-me-again"}).status_code == 200
    finally:
        server.terminate()
        server.wait(timeout=180)
    log = (tmp_path / "logs" / "api.jsonl").read_text()
    assert '"request_id":"find-me-again"' in log


def test_only_loopback_addresses_are_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "example.com", "10.0.0.1", ""))


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
