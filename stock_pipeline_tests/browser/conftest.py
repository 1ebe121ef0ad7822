"""A headless Chromium, and all services on a small market that has been run; they end with the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings, load_settings
from stock_pipeline_tests.browser.visits import PASSWORD, PATIENCE_MS, PEOPLE, Visits
from stock_pipeline_tests.copies import copy_market
from stock_pipeline_tests.orchestration.conftest import SMALL, make_market
from stock_pipeline_tests.patience import patient_limits  # noqa: F401
from stock_pipeline_tests.proxy import NAME
from stock_pipeline_tests.running import Running, services_running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
TINY: dict[str, Any] = {
    "access": {
        "registration": "invitation",
        "passwords": {"memory_kib": 8, "passes": 1, "lanes": 1},
        "limits": {"login": "1000/minute"},
    },
    "market": {**SMALL["market"], "history": {"first": 2016, "last": 2018}},
    "models": {**SMALL["models"], "families": ["ridge"]},
}


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser; the test is skipped where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed; to run this test: pip install playwright")
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("chromium is not installed; to run this test: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=found, args=arguments, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shown(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A tiny market after a complete run; depends on the browser so that nothing is run where there is none."""
    from stock_pipeline.orchestration.runner import Runner

    folder = tmp_path_factory.mktemp("shown")
    settings = load_settings(make_market(folder, until="2018-12-31", changes=TINY), environment={})
    Runner(settings).catch_up()
    return settings


@pytest.fixture(scope="package")
def untouched(shown: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of that market from before the services run on it."""
    folder = tmp_path_factory.mktemp("untouched")
    copy_market(shown.config_file.parent, folder)
    return load_settings(folder / shown.config_file.name, environment={})


@pytest.fixture(scope="package")
def service(shown: Settings, untouched: Settings) -> Service:
    """The parts of a service on that market, as the running one has them, with an account of each role."""
    parts = Service(shown)
    for name, role in PEOPLE.items():
        parts.access.accounts.create(name, password=PASSWORD, roles=(role,), by="system")
    return parts


@pytest.fixture(scope="package")
def running(shown: Settings, untouched: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All services on that market."""
    with services_running(shown.config_file, tmp_path_factory.mktemp("output") / "dev.log") as services:
        yield services


@pytest.fixture
def visits(chromium: Browser, running: Running, service: Service) -> Iterator[Visits]:
    """Pages of the running console; the test fails when one reports an error that was not expected."""
    found = Visits(chromium, running.api, service)
    yield found
    found.finish()
