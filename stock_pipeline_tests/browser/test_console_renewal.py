"""Parts of a page that renew themselves are not in the way of who uses the page, and are right in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.storage.database.tables.tasks import TaskRow
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.tasks import Launched
from stock_pipeline_tests.api_service import service_for
from stock_pipeline_tests.browser.visits import PASSWORD, Visits, soon
from stock_pipeline_tests.published import SESSIONS, publish
from stock_pipeline_tests.run_control import Runs
from stock_pipeline_tests.serving import served
from stock_pipeline_tests.streaming import append, planned

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R5.1", "A2")]

SETTLE_MS = 300
"""How long the scripts of a page have to do something with an answer that they should not do."""

UNREAD = """() => {
  const real = window.fetch;
  window.fetch = async (address, options) => {
    const answer = await real(address, options);
    window.fetch = real;
    window.reading = true;
    const { signal } = options;
    answer.text = () => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
    return answer;
  };
}"""
"""Lets the next answer begin and not end."""


class Followed:
    """A task of somebody, whose page is open."""

    def __init__(self, chromium: Browser, address: str, service: Service) -> None:
        self.visits, self.service, self._numbers = Visits(chromium, f"{address}/", service), service, count()
        run = service.runs.launch("backtest_on_request", {}, {})
        launched = Launched(run.run_id, "backtest", run.job, datetime.now(UTC), owner="ada")
        self.id = service.tasks.store.enter(launched).id
        self.path = f"tasks/{self.id}"

    def turns(self, state: str) -> None:
        """Let it have another state."""
        with Session(self.service.database) as session, session.begin():
            session.execute(update(TaskRow).where(TaskRow.id == self.id).values(state=state))
        self.tell()

    def tell(self) -> None:
        """Let an event of it arrive."""
        append(self.service.database, [replace(planned(4 * next(self._numbers)), task_id=self.id)])

    def open(self, path: str) -> Page:
        """A page that follows it."""
        page = self.visits.page("ada", path)
        page.locator(".live.on").wait_for()
        return page

    def renewal(self, page: Page) -> Route:
        """The question of a page for itself, which an event brings about; it is not answered yet."""
        asked = self.answer(page, lambda route: None)
        self.tell()
        return first_of(asked, page)

    def answer(self, page: Page, first: Callable[[Route], None]) -> list[Route]:
        """Answer the first renewal of a page otherwise; gives those that were asked for."""
        asked: list[Route] = []
        address = page.url

        def judge(route: Route) -> None:
            if asked or route.request.resource_type != "fetch" or route.request.url != address:
                route.fallback()
                return
            asked.append(route)
            first(route)

        page.route("**/*", judge)
        return asked


@pytest.fixture
def followed(chromium: Browser, tmp_path: Path) -> Iterator[Followed]:
    lake = Lake(tmp_path / "lake")
    publish(lake, SESSIONS[-1])
    service = service_for(lake)
    service.runs = Runs()
    service.access.accounts.create("ada", password=PASSWORD, roles=("administrator",), by="system")
    with served(create_app(service)) as address:
        made = Followed(chromium, address, service)
        yield made
        made.visits.finish()


def first_of(asked: list[Route], page: Page) -> Route:
    """The first request that is held, once the page has made it."""
    soon(page, lambda: asked, lambda: f"{page.url} does not ask")
    return asked[0]


def arrives(page: Page, renewal: Route) -> None:
    """Let a renewal be answered, and the page do what it does then."""
    with page.expect_event("requestfinished", lambda request: request == renewal.request):
        renewal.continue_()
    page.wait_for_timeout(SETTLE_MS)


def test_a_button_under_a_pressed_pointer_stays_where_it_is(followed: Followed) -> None:
    page = followed.open(followed.path)
    renewal = followed.renewal(page)
    page.get_by_role("button", name="Pause").hover()
    page.mouse.down()
    arrives(page, renewal)
    page.mouse.up()
    page.locator("#task .badge", has_text="paus").wait_for()


def test_a_question_is_about_a_part_that_is_still_there(followed: Followed) -> None:
    page = followed.open(followed.path)
    renewal = followed.renewal(page)
    page.get_by_role("button", name="Cancel").click()
    question = page.get_by_role("dialog")
    question.wait_for()
    arrives(page, renewal)
    question.get_by_role("button", name="Cancel").click()
    page.locator("#task .badge", has_text="cancel").wait_for()


def test_a_page_that_is_left_is_not_loaded_again(followed: Followed) -> None:
    followed.turns("succeeded")
    followed.visits.allow_refusals(404)  # unless the page is gone before it hears of it
    page = followed.open(followed.path)
    renewal = followed.renewal(page)

    def deleted(route: Route) -> None:
        """The task is gone, and the answer that says so is under way."""
        renewal.fulfill(status=404, body="there is no such task")
        page.wait_for_timeout(SETTLE_MS)
        route.fallback()

    page.route("**/delete", deleted)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("The task and its runs are deleted").wait_for()


def test_rows_of_an_earlier_filter_do_not_come_back(followed: Followed) -> None:
    page = followed.open("tasks")
    renewal = followed.renewal(page)
    page.get_by_label("Kind").select_option("train")
    page.get_by_text("No task here").wait_for()
    arrives(page, renewal)
    assert page.locator("#results tbody tr").count() == 0


def test_a_renewal_that_fails_is_repeated_although_nothing_more_happens(followed: Followed) -> None:
    page = followed.open(followed.path)
    asked = followed.answer(page, lambda route: route.fulfill(status=429, body="too many"))
    followed.visits.expect_refusals(429)
    followed.turns("succeeded")
    page.locator("#task .badge", has_text="succeeded").wait_for()
    assert len(asked) == 1


def test_a_page_that_is_told_to_wait_does_not_ask_before(followed: Followed) -> None:
    page = followed.open(followed.path)
    followed.answer(page, lambda route: route.fulfill(status=429, headers={"Retry-After": "600"}, body="too many"))
    followed.visits.expect_refusals(429)
    with page.expect_event("requestfinished", lambda request: request.url == page.url):
        followed.tell()
    page.wait_for_timeout(SETTLE_MS)
    later: list[str] = []
    page.on("request", lambda request: later.append(request.url))
    followed.turns("succeeded")
    page.wait_for_timeout(2000)
    assert page.url not in later


def test_whoever_types_on_while_an_answer_arrives_sees_no_fault(followed: Followed) -> None:
    page = followed.open("tasks")
    page.evaluate(UNREAD)
    page.get_by_label("Contains").fill("first")
    page.wait_for_function("() => window.reading")
    page.get_by_label("Contains").fill("second")
    page.wait_for_url("**q=second*")
    page.get_by_text("No task here").wait_for()


def test_nothing_final_is_done_before_the_page_can_ask(followed: Followed) -> None:
    followed.turns("succeeded")
    page = followed.visits.page("ada", None)
    held: list[Route] = []
    page.route("**/js/console.js*", lambda route: held.append(route))
    page.goto(followed.visits.address + followed.path, wait_until="commit")
    button = page.get_by_role("button", name="Delete")
    button.wait_for()
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('form[data-confirm] button')).pointerEvents == 'none'"
    )
    place = button.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.wait_for_timeout(SETTLE_MS)
    assert followed.service.tasks.store.get(followed.id) is not None
    first_of(held, page).continue_()
    button.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("The task and its runs are deleted").wait_for()
