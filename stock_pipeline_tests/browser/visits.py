"""Visits to the console in a real browser, by people of every role."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stock_pipeline.access.principal import Origin
from stock_pipeline.api import cookies
from stock_pipeline.api.service import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

WIDE, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
"""One device for everybody: a new one would have to prove itself first."""

PASSWORD = "seven quiet otters 93"
PEOPLE = {"vera": "viewer", "ana": "analyst", "otto": "operator", "ada": "administrator"}
"""Accounts of the running services, by role."""

REFUSAL = re.compile(
    r"(?:Failed to load resource: the server responded with a status of"
    r"|WebSocket connection to .* failed: Error during WebSocket handshake: Unexpected response code:) (4\d\d)"
)
"""How Chromium tells of an answer that refused."""

NO_SOCKETS = """
const Real = window.WebSocket;
window.WebSocket = class extends Real { constructor(address) { super(`${address}/not-let-through`); } };
"""
"""Script of a page for which no WebSocket gets through, as behind a proxy that knows none."""

NO_FAULT = ("ERR_ABORTED", "WebSocket is closed before the connection is established")
"""What Chromium reports of a page that is left while it loads, and of a WebSocket that a slow machine did not greet."""

PATIENCE_MS = 120_000
"""How long a browser waits for what is sure to come."""


@dataclass
class Visits:
    """Opens pages of the console for people who have logged in.

    Whatever a browser reports as an error is kept until the end of the test, since it tells of an answer some time
    after the page is there; a test says beforehand which refusals it means to see, and which it would bear.
    """

    browser: Browser
    address: str
    service: Service
    contexts: list[BrowserContext] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    expected: Counter[int] = field(default_factory=Counter)
    allowed: Counter[int] = field(default_factory=Counter)

    def expect_refusals(self, *statuses: int) -> None:
        """Say which answers of 400 and above this test means to see, each as often as it is named."""
        self.expected.update(statuses)

    def allow_refusals(self, *statuses: int) -> None:
        """Say which may come besides, as one thing or another is quicker, each at most as often as it is named."""
        self.allowed.update(statuses)

    def finish(self) -> None:
        """Close all pages; fails where a refusal did not come that was expected, or anything was reported besides."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        try:
            while (missing := self.missing()) and (pages := [page for made in self.contexts for page in made.pages]):
                assert time.monotonic() < deadline, f"not refused: {missing}; reported: {self.problems}"
                pages[0].wait_for_timeout(50)
        finally:
            for context in self.contexts:
                context.close()
        assert self.missing() == []
        assert self.unexpected() == []

    def missing(self) -> list[int]:
        """Refusals that were expected and have not been reported yet."""
        return list((self.expected - Counter(map(_refused, self.problems))).elements())

    def unexpected(self) -> list[str]:
        """What browsers reported beyond what was expected or allowed."""
        left, found = self.expected + self.allowed, []
        for text in self.problems:
            status = _refused(text)
            if left[status] > 0:
                left[status] -= 1
            elif not any(words in text for words in NO_FAULT):
                found.append(text)
        return found

    def page(self, who: str | None = None, path: str | None = "", *, size: dict[str, int] | None = None) -> Page:
        """A page in a browser of its own; somebody is logged in by a cookie, as after the form."""
        context = self.browser.new_context(viewport=size or WIDE, user_agent=AGENT)  # type: ignore[arg-type]
        self.contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)  # also of the pages that this one opens
        if who is not None:
            logins = self.service.access.logins
            opened = logins.log_in(who, PASSWORD, kind="console", origin=Origin("127.0.0.1", AGENT))
            cookie = {"name": cookies.name(self.service.settings), "value": opened.cookie, "url": self.address}
            context.add_cookies([cookie])  # type: ignore[list-item]
        page = context.new_page()
        watch(page, self.problems)
        if path is not None:
            page.goto(self.address + path.lstrip("/"))
        return page


def _refused(problem: str) -> int:
    """Status of the answer that a browser tells of; 0 where it tells of something else."""
    refusal = REFUSAL.match(problem)
    return int(refusal[1]) if refusal else 0


def watch(page: Page, problems: list[str]) -> None:
    """Keep what a page reports as an error: scripts that throw, files that are missing, what the policy blocks."""
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))


def soon(page: Page, holds: Callable[[], Any], seen: Callable[[], Any]) -> None:
    """Let a page go on until something holds; what is told where it never does is what was seen."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not holds():
        assert time.monotonic() < deadline, seen()
        page.wait_for_timeout(20)


def loaded(page: Page) -> None:
    """Wait until a page that a click has led to is there with its scripts: the first of it is seen before that."""
    page.wait_for_load_state("load")


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
