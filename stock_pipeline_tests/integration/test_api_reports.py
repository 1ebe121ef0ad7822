"""The pages of the pipeline, served: who may open them, what they may do, and that no name leads out of the folder."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.reading.files import locate, scripted_policy
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import app_for, problem, signed_in

SCRIPT = "draw(1)\n"
PAGE = (
    f"<!doctype html><title>x</title><script>{SCRIPT}</script><script type='text/javascript'>two()</script>"
    + "x" * 2000
)
OUTSIDE = "<title>what lies elsewhere</title>"


@pytest.fixture(scope="module")
def app(published_lake: Lake) -> FastAPI:
    made = app_for(published_lake, poll_seconds=60)
    reports: Path = made.state.service.reports
    for name, text in {
        "quality.html": PAGE,
        "quality.stamp": "stamp",
        ".data_docs-1/index.html": "<title>docs</title><script>alert(1)</script>",
        ".data_docs-1/static/images/logo.png": "png",
        ".data_docs-1/static/run.js": "alert(1)",
        ".data_docs-1/.hidden.html": OUTSIDE,
        "backtests/sma_cross.html": PAGE,
        "backtests/sma_cross.json": "{}",
        "backtests/on_request/sma_cross-1.html": PAGE,
        "predictions/abc.json": "{}",
        "../outside.html": OUTSIDE,
        "../outside/page.html": OUTSIDE,
    }.items():
        path = reports / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (reports / "data_docs").symlink_to(".data_docs-1")
    (reports / "backtests" / "linked.html").symlink_to(reports.parent / "outside.html")
    (reports / "backtests" / "folder").symlink_to(reports.parent / "outside")
    (reports / "backtests" / "loop.html").symlink_to("loop.html")
    return made


@pytest.fixture(scope="module")
def viewer(app: FastAPI) -> TestClient:
    return signed_in(app)


@pytest.mark.requirement("R3.5", "R7.4", "A6")
def test_pages_are_served(viewer: TestClient) -> None:
    for path in ("quality.html", "backtests/sma_cross.html", "backtests/on_request/sma_cross-1.html"):
        page = viewer.get(f"/reports/{path}")
        assert page.status_code == 200
        assert page.text == PAGE
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-encoding"] == "gzip"
        assert viewer.get(f"/reports/{path}", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    assert "docs" in viewer.get("/reports/data_docs/").text
    assert viewer.get("/reports/data_docs/static/images/logo.png").headers["content-type"] == "image/png"


@pytest.mark.requirement("R8.2")
def test_each_page_needs_its_permission(app: FastAPI) -> None:
    access = app.state.service.access
    signed_in(app)
    _, key = access.keys.create("the-viewer", "quality only", ["quality:read"], by="system")
    half, stranger, nobody = TestClient(app, headers={"X-API-Key": key}), signed_in(app, None), TestClient(app)
    for path, allowed in (("quality.html", 200), ("data_docs/index.html", 200), ("backtests/sma_cross.html", 403)):
        assert half.get(f"/reports/{path}").status_code == allowed
        assert stranger.get(f"/reports/{path}").status_code == 403
        assert nobody.get(f"/reports/{path}").status_code == 401


@pytest.mark.requirement("R8.2", "R3.5")
def test_a_page_runs_only_the_scripts_of_its_own_file_and_in_a_sandbox(viewer: TestClient) -> None:
    policy = viewer.get("/reports/quality.html").headers["content-security-policy"]
    parts = dict(
        part.strip().split(" ", 1) if " " in part.strip() else (part.strip(), "") for part in policy.split(";")
    )
    assert parts["sandbox"] == "allow-scripts"  # neither same-origin nor forms, pop-ups or top navigation
    assert parts["default-src"] == "'none'"
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (SCRIPT, "two()")]
    assert parts["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert "connect-src" not in parts
    docs = viewer.get("/reports/data_docs/index.html").headers["content-security-policy"]
    assert docs.startswith("default-src 'none'")
    assert "script" not in docs


@pytest.mark.requirement("R8.2")
def test_a_page_that_changes_is_read_again(app: FastAPI, viewer: TestClient) -> None:
    path = app.state.service.reports / "backtests" / "changing.html"
    for number in range(3):
        path.write_text(f"<script>number({number})</script>")
        os.utime(path, (number, number))
        page = viewer.get("/reports/backtests/changing.html")
        assert f"number({number})" in page.text
        digest = base64.b64encode(hashlib.sha256(f"number({number})".encode()).digest()).decode()
        assert digest in page.headers["content-security-policy"]


@pytest.mark.requirement("R8.2")
@pytest.mark.parametrize(
    "path",
    [
        "quality.stamp", "backtests/sma_cross.json", "predictions/abc.json", "backtests/linked.html",
        "backtests/folder/page.html", "backtests/loop.html", "backtests/", "backtests/on_request",
        "data_docs/.hidden.html", ".data_docs-1/index.html", "data_docs/static/run.js",
        "backtests/..%2f..%2foutside.html", "backtests/%2e%2e/%2e%2e/outside.html",
        "data_docs/%2e%2e%2f%2e%2e%2foutside.html", "backtests//sma_cross.html", "backtests/%2fetc%2fpasswd",
        "backtests/sma_cross.html%00.html", "backtests/a%5c..%5cb.html", "nothing.html",
    ],
)  # fmt: skip
def test_nothing_else_is_served(viewer: TestClient, path: str) -> None:
    answer = viewer.get(f"/reports/{path}", follow_redirects=False)
    assert answer.status_code in (308, 400, 404), answer.text
    assert "elsewhere" not in answer.text
    if answer.status_code == 404:
        problem(answer, 404, answer.json()["type"].rsplit(":", 1)[1])


@pytest.mark.requirement("R8.2")
@given(
    st.lists(
        st.sampled_from(["..", ".", "", "in", "out.html", "page.html", "link", "~", "\\", "\0", "in.html"]), max_size=6
    )
)
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "paths"
    inside = root / "home"
    if not root.exists():
        (inside / "in").mkdir(parents=True)
        (inside / "in" / "page.html").write_text("in")
        (root / "out.html").write_text("out")
        (inside / "link").symlink_to(root)
    try:
        found = locate(inside, "/".join(parts), frozenset({".html"}))
    except ProblemError:
        return
    assert found == inside / "in" / "page.html"


@pytest.mark.parametrize(
    ("page", "scripts"),
    [
        ("<p>none</p>", []),
        ("<SCRIPT>a</SCRIPT >", ["a"]),
        ("<script src='x.js'></script>", []),
        ("<script>a\r\nb</script>", ["a\nb"]),
        ("<script>a</script><script>a</script>", ["a"]),
    ],
)
def test_hashes_are_those_that_a_browser_computes(page: str, scripts: list[str]) -> None:
    expected = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert f"script-src {' '.join(expected) or chr(39) + 'none' + chr(39)};" in scripted_policy(page)
