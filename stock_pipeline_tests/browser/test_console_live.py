"""Events reach a page once and in order: by WebSocket, and by Server-Sent Events where none gets through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import service_for
from stock_pipeline_tests.browser.visits import NO_SOCKETS, PASSWORD, PATIENCE_MS, Visits
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.services import free_port
from stock_pipeline_tests.serving import served
from stock_pipeline_tests.streaming import KINDS, append, planned

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow]

FOLLOW = """async (address) => {
  const { follow } = await import(address);
  window.seen = [];
  window.connected = 0;
  const take = (event) => window.seen.push(event.data.number);
  follow({ kinds: ["task.progress"], since: 0 }, take, (state) => { window.connected += state; });
}"""


GREETING = "const GREETING = 10_000;"
"""How long a script waits for a WebSocket before it goes the other way."""


def patient_script() -> str:
    """The script for a machine that may stand still longer."""
    script = (REPOSITORY / "stock_pipeline" / "api" / "static" / "js" / "events.js").read_text(encoding="utf-8")
    assert GREETING in script
    return script.replace(GREETING, "const GREETING = 600_000;")


@pytest.fixture
def lone(tmp_path: Path) -> Service:
    """The parts of a service whose application is started, ended and started again at the same address."""
    lake = Lake(tmp_path / "lake")
    publish(lake, SESSIONS[-1])
    made = service_for(lake)
    made.access.accounts.create("ada", password=PASSWORD, roles=("administrator",), by="system")
    return made


def expected(until: int) -> list[int]:
    """Numbers of the events that are followed."""
    return [number for number in range(until) if KINDS[number % len(KINDS)] == "task.progress"]


def arrived(page: Page, until: int) -> list[int]:
    """What has arrived, once the last event is there."""
    page.wait_for_function("(last) => window.seen.includes(last)", arg=expected(until)[-1])
    found: list[int] = page.evaluate("window.seen")
    return found


@pytest.mark.requirement("R5.1", "A2")
@pytest.mark.parametrize("way", ["sockets", "no-sockets"])
def test_events_arrive_once_and_in_order_also_after_the_service_was_away(
    chromium: Browser, lone: Service, way: str
) -> None:
    port = free_port()
    visits = Visits(chromium, f"http://127.0.0.1:{port}/", lone)
    page = visits.page("ada", None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if way == "no-sockets":
        page.add_init_script(NO_SOCKETS)
    else:
        script = patient_script()
        page.route("**/static/js/events.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    with served(create_app(lone), port):
        page.goto(f"{visits.address}account")
        append(lone.database, [planned(number) for number in range(40)])
        page.evaluate(FOLLOW, "/static/js/events.js")
        assert arrived(page, 40) == expected(40), "what was there before"
        for number in range(40, 80):
            append(lone.database, [planned(number)])
        assert arrived(page, 80) == expected(80), "and what happens now"
    append(lone.database, [planned(number) for number in range(80, 100)])
    with served(create_app(lone), port):
        append(lone.database, [planned(number) for number in range(100, 120)])
        assert arrived(page, 120) == expected(120), "nothing twice and nothing missed"
        assert page.evaluate("window.connected") >= 2
        # the page itself follows other kinds, and one that was about to when the service ended goes the other way
        streams = [one for one in asked if one.startswith(f"{visits.address}api/events/stream?")]
        own = [one for one in streams if parse_qs(urlsplit(one).query)["kind"] == ["task.progress"]]
        assert bool(own) == (way == "no-sockets")
        page.context.close()


@pytest.mark.requirement("R5.1", "A2")
def test_a_task_is_followed_live_where_no_socket_gets_through(visits: Visits) -> None:
    visits.allow_refusals(*[403] * 5)  # where no WebSocket is greeted in time, it is closed before it is refused
    page = visits.page("ana", None)
    page.add_init_script(NO_SOCKETS)
    page.goto(f"{visits.address}backtests/new?strategy=buy_and_hold")
    with page.expect_request("**/api/events/stream?*task_id=*", timeout=PATIENCE_MS):
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url("**/tasks/*")
        page.evaluate("window.mark = 1")
    page.locator(".live.on").wait_for()
    page.locator("#task .badge", has_text="succeeded").wait_for()
    assert page.evaluate("window.mark") == 1, "it was watched without loading the page anew"
    told = page.locator(".log .text").all_inner_texts()
    assert told[0] == "Succeeded."
    steps = [text for text in told if "steps done" in text]
    assert len(steps) == len(set(steps)), "each once"
    counts = [int(text.split()[0]) for text in steps]
    assert counts == sorted(counts, reverse=True), "the newest first"
