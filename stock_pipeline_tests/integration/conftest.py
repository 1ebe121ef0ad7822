"""Applications with accounts, on SQLite and on Postgres."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
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
from stock_pipeline_tests.patience import patient_limits  # noqa: F401
from stock_pipeline_tests.published import SESSIONS, publish

PATIENT = {
    "limits": {"login": "10000/minute", "write": "10000/minute", "read": "100000/minute", "failures": "10000/minute"}
}
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


Make = Callable[..., FastAPI]


def _maker(lake: Lake, address: str, clock: Clock) -> Make:
    def make(
        *, allowed_hosts: Sequence[str] | None = None, variables: dict[str, str] | None = None, **access: Any
    ) -> FastAPI:
        sections = {"storage": {"metadata": address}, "access": {**PATIENT, **access}, "variables": variables}
        app = app_for(lake, poll_seconds=60, sections=sections, allowed_hosts=allowed_hosts)
        app.state.publications.refresh()
        return with_clock(app, clock)

    return make


@pytest.fixture
def make_app(published_lake: Lake, database_address: str, clock: Clock) -> Make:  # noqa: F811
    """Make an application on a fresh database, with settings of ``access``: once on SQLite, once on Postgres."""
    return _maker(published_lake, database_address, clock)


@pytest.fixture
def app(make_app: Make) -> FastAPI:
    """An application on a fresh database: once on SQLite, once on Postgres."""
    return make_app()


@pytest.fixture
def make_lone_app(published_lake: Lake, migrated_file: Path, tmp_path: Path, clock: Clock) -> Make:  # noqa: F811
    """The same on SQLite alone, for what has nothing to do with the database; each application has one of its own."""
    numbers = itertools.count(1)

    def make(**options: Any) -> FastAPI:
        path = tmp_path / f"metadata-{next(numbers)}.db"
        shutil.copyfile(migrated_file, path)
        return _maker(published_lake, f"sqlite:///{path}", clock)(**options)

    return make


@pytest.fixture
def lone_app(make_lone_app: Make) -> FastAPI:
    """The same on SQLite alone."""
    return make_lone_app()
