"""Applications with accounts, on SQLite and on Postgres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import Clock, app_for, with_clock
from stock_pipeline_tests.databases import (  # noqa: F401
    database,
    database_address,
    migrated_file,
    postgres_address,
    postgres_server,
    sqlite_address,
    sqlite_database,
)
from stock_pipeline_tests.published import SESSIONS, publish

PATIENT = {"limits": {"login": "10000/minute", "write": "10000/minute", "read": "100000/minute"}}
"""Limits that a test which is about something else does not meet."""


@pytest.fixture(scope="session")
def published_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with one publication; not to be changed."""
    lake = Lake(tmp_path_factory.mktemp("published"))
    publish(lake, SESSIONS[0])
    return lake


@pytest.fixture
def clock() -> Clock:
    """The time by which `make_app` goes."""
    return Clock()


@pytest.fixture
def make_app(published_lake: Lake, database_address: str, clock: Clock) -> Callable[..., FastAPI]:  # noqa: F811
    """Make an application on a fresh database, with settings of ``access``."""

    def make(**access: Any) -> FastAPI:
        sections = {"storage": {"metadata": database_address}, "access": {**PATIENT, **access}}
        app = with_clock(app_for(published_lake, poll_seconds=60, sections=sections), clock)
        app.state.publications.refresh()
        return app

    return make


@pytest.fixture
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    """An application on a fresh database."""
    return make_app()
