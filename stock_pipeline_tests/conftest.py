"""What every test shares: real data fixtures, the Hypothesis profile, and that nothing is skipped where ``CI=true``."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from stock_pipeline_tests.databases import (  # noqa: F401 - fixtures for every folder
    database,
    database_address,
    migrated_file,
    postgres_address,
    postgres_server,
    sqlite_address,
    sqlite_database,
)
from stock_pipeline_tests.scheduling import pytest_xdist_make_scheduler  # noqa: F401

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("default")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test that is skipped fail in continuous integration, unless it is about data that nobody can install."""
    report = yield
    return report if "market_data" in getattr(item, "fixturenames", ()) else _not_skipped(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole files."""
    return _not_skipped((yield))


def _not_skipped(report: Report) -> Report:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple) and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"not to be skipped in continuous integration: {report.longrepr[2]}"
    return report


REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "data" / "sample"
MARKET_DATA = REPOSITORY.parent / "shared" / "market_data"


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """The tracked sample market."""
    return SAMPLE


@pytest.fixture(scope="session")
def market_data() -> Path:
    """A folder of further real prices beside the repository; tests that need it are skipped where it is absent."""
    if not MARKET_DATA.is_dir():
        pytest.skip(f"needs the optional market data folder {MARKET_DATA}")
    return MARKET_DATA
