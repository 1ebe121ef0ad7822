"""What every test shares: the ``requirement`` marker, real data fixtures and Hypothesis profiles."""

from __future__ import annotations

import os
from pathlib import Path

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

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("default")

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
