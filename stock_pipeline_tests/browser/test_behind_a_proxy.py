"""The site of ``deploy/nginx``: one name and one log-in for console, API, and the web UIs of Dagster and MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.service import Service
from stock_pipeline.config import load_settings
from stock_pipeline_tests.browser.visits import AGENT, PASSWORD, REFUSAL, soon, watch
from stock_pipeline_tests.proxy import NAME, OnThisMachine, Proxy, nginx, prepare_proxy, program
from stock_pipeline_tests.running import services_running
from stock_pipeline_tests.services import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R8.5")]


@dataclass(frozen=True)
class Site:
    """Services in production mode behind nginx, and the parts of their service."""

    proxy: Proxy
    service: Service

    def client(self, **headers: str) -> httpx.Client:
        """A program, or a browser by its headers."""
        way = OnThisMachine(verify=self.proxy.trust())
        return httpx.Client(base_url=self.proxy.address, transport=way, headers=headers, timeout=120)

    def log_in(self, client: httpx.Client, who: str) -> None:
        """Let a client send an access token from now on."""
        answer = client.post("/api/auth/login", json={"name": who, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def cookie(self, who: str) -> dict[str, str]:
        """Cookie of a browser that has logged in by the form."""
        with self.client(Origin=self.proxy.address, **{"User-Agent": AGENT}) as client:
            answer = client.post("/login", data={"name": who, "password": PASSWORD, "next": "/"})
            assert answer.status_code == 303, answer.text
            found = dict(client.cookies)
        assert all(name.startswith("__Host-") for name in found)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything, without any data: what is looked at is who may pass."""
    program()
    folder = tmp_path_factory.mktemp("proxied")
    (folder / "prices").mkdir()
    proxy = prepare_proxy(folder / "nginx")
    ports = {name: free_port() for name in ("dagster", "mlflow", "api")}
    config = folder / "market.yaml"
    content = {
        "environment": "prod",
        "home": str(folder / "home"),
        "market": {"name": "proxied", "calendar": "XNYS"},
        "source": {"kind": "files", "path": "prices"},
        "services": {"dagster_path": "/dagster", "mlflow_path": "/mlflow"},
        "access": {
            "public_url": proxy.address,
            "trusted_proxies": ["127.0.0.1/32"],
            "passwords": {"memory_kib": 8, "passes": 1, "lanes": 1},
            "limits": {"login": "1000/minute"},
        },
    }
    config.write_text(yaml.safe_dump(content))
    with (
        services_running(config, folder / "dev.log", ports=ports),
        nginx(proxy, folder / "nginx", ports),
    ):
        settings = load_settings(config, environment={})
        service = Service(settings)
        for name, role in (("vera", "viewer"), ("otto", "operator"), ("olga", "operator")):
            service.access.accounts.create(name, password=PASSWORD, roles=(role,), by="system")
        yield Site(proxy, service)


def opened(chromium: Browser, problems: list[str]) -> Page:
    page = chromium.new_context(ignore_https_errors=True, user_agent=AGENT).new_page()
    page.set_default_timeout(120_000)
    watch(page, problems)
    return page


def logged_in(page: Page, who: str) -> None:
    page.get_by_label("Name").fill(who)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_an_operator_logs_in_once_for_console_dagster_and_mlflow(chromium: Browser, site: Site) -> None:
    page = opened(chromium, problems := [])
    sockets: list[str] = []
    page.on("websocket", lambda one: one.on("framereceived", lambda _: sockets.append(one.url)))
    page.goto(f"{site.proxy.address}/dagster/runs?q=status:FAILURE&show=all")
    assert "/login" in page.url, "who is not logged in is asked to"
    logged_in(page, "otto")
    page.wait_for_url(f"{site.proxy.address}/dagster/runs?q=status:FAILURE&show=all")
    page.get_by_role("link", name=re.compile("Lineage")).wait_for()  # and not the icon column_lineage of another one
    page.wait_for_function("document.title.startsWith('Runs')")
    said = "the live connection of the UI passes as well"
    soon(page, lambda: any("/dagster/graphql" in url for url in sockets), lambda: f"{said}: {problems}")
    # the UI of another project warns of this and that: what counts is that nothing of it was refused
    assert [text for text in problems if REFUSAL.match(text) or "Unexpected response code" in text] == []

    page.goto(site.proxy.address)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="MLflow").click()
    page.wait_for_url(f"{site.proxy.address}/mlflow/**")
    page.get_by_text("Experiments").first.wait_for()
    page.goto(f"{site.proxy.address}/tasks")
    page.locator(".live.on").wait_for()

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login**")
    page.goto(f"{site.proxy.address}/dagster/")
    assert "/login" in page.url, "what is closed is closed everywhere"
    page.context.close()


def test_a_viewer_is_told_why_not(chromium: Browser, site: Site) -> None:
    page = opened(chromium, [])
    page.goto(f"{site.proxy.address}/mlflow/")
    logged_in(page, "vera")
    page.wait_for_url(f"{site.proxy.address}/tools/mlflow/")
    page.get_by_role("heading", name="You may not do this").wait_for()
    page.get_by_text("vera lacks the permission mlflow:use").wait_for()
    page.goto(site.proxy.address)
    shown = page.get_by_role("navigation", name="Main").inner_text()
    assert "Tasks" in shown
    assert "Dagster" not in shown
    page.context.close()


MUTATION = {"query": 'mutation { terminateRun(runId: "x") { __typename } }'}


@pytest.mark.parametrize("path", ["/dagster/graphql", "/mlflow/ajax-api/2.0/mlflow/experiments/create"])
def test_nothing_passes_without_a_log_in_that_may(site: Site, path: str) -> None:
    with site.client() as nobody, site.client() as vera:
        site.log_in(vera, "vera")
        for answer in (
            nobody.post(path, json=MUTATION),
            nobody.post(path, json=MUTATION, headers={"Authorization": "Bearer made-up"}),
            nobody.post(path, json=MUTATION, headers={"X-Original-URI": "/login", "X-Account": "otto"}),
            nobody.post(path.replace("/", "/./", 1), json=MUTATION),
            nobody.post("/static/.." + path, json=MUTATION),
            nobody.post(path.replace("dagster", "d%61gster").replace("mlflow", "ml%66low", 1), json=MUTATION),
        ):
            assert answer.status_code in (401, 405), answer.text
        answer = vera.post(path, json=MUTATION)
        assert answer.status_code in (403, 405), answer.text
        assert nobody.get("/-/dagster").status_code == 404, "what the proxy asks is not for others"


def test_a_token_passes_until_its_session_ends(site: Site) -> None:
    with site.client() as olga:
        site.log_in(olga, "olga")
        answer = olga.post("/dagster/graphql", json={"query": "{ version }"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["version"]
        made = olga.post("/mlflow/ajax-api/2.0/mlflow/experiments/create", json={"name": "by hand"})
        assert made.status_code == 200, made.text
        assert olga.post("/api/auth/logout").status_code == 204
        assert olga.post("/dagster/graphql", json={"query": "{ version }"}).status_code != 200


def test_pages_of_other_sites_start_nothing_with_somebodys_cookie(site: Site) -> None:
    with site.client(**{"User-Agent": AGENT}) as browser:
        browser.cookies.update(site.cookie("otto"))
        asked = {"json": {"query": "{ version }"}}
        own = {"Origin": site.proxy.address}
        assert browser.post("/dagster/graphql", headers=own, **asked).status_code == 200
        search = {"json": {"max_results": 5}}
        assert browser.post("/mlflow/ajax-api/2.0/mlflow/experiments/search", headers=own, **search).status_code == 200
        for foreign in ("https://evil.example", "null", site.proxy.address + "1"):
            assert browser.post("/dagster/graphql", headers={"Origin": foreign}, **asked).status_code == 403, foreign
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert browser.get("/mlflow/version", headers=image).status_code != 200
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert browser.get("/dagster/", headers=link).status_code == 200, "a link in a mail may lead to a run"
        answer = browser.get("/dagster/graphql", params=MUTATION, headers=link)
        assert answer.status_code == 405, "but not to a change: GraphQL takes these by GET as well"


def test_the_trail_names_the_client_and_not_the_proxy(site: Site) -> None:
    with site.client(**{"X-Forwarded-For": "203.0.113.7"}) as client:
        answer = client.post("/api/auth/login", json={"name": "vera", "password": "certainly wrong 1"})
        assert answer.status_code == 401
    newest = site.service.access.audit.entries(AuditFilter(action="session.log_in"), limit=1)[0]
    assert newest.result != "done"
    assert newest.address == "127.0.0.1", "what a client writes into the header itself counts for nothing"


def test_without_encryption_one_is_sent_to_where_there_is_some(site: Site) -> None:
    plain = f"http://127.0.0.1:{site.proxy.plain_port}/tasks?kind=train"
    answer = httpx.get(plain, headers={"Host": NAME}, timeout=120)
    assert answer.status_code == 301
    assert answer.headers["location"] == f"https://{NAME}/tasks?kind=train"
    with site.client() as client:
        assert "max-age" in client.get("/login").headers["strict-transport-security"]


def test_while_the_service_is_away_nothing_passes_and_one_is_asked_to_wait(tmp_path: Path) -> None:
    proxy = prepare_proxy(tmp_path)
    ports = {name: free_port() for name in ("dagster", "mlflow", "api")}
    with (
        nginx(proxy, tmp_path, ports),
        httpx.Client(base_url=proxy.address, transport=OnThisMachine(verify=proxy.trust()), timeout=120) as client,
    ):
        for path in ("/dagster/", "/mlflow/", "/mlflow/version"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path
